// Small tools for bytes. Everything here is synchronous and pure.

/** Bytes are a Uint8Array over a buffer of its own kind, as WebCrypto and data channels want them. */
export type Bytes = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** utf8 returns the bytes of a string; lone surrogates become U+FFFD. */
export function utf8(s: string): Bytes {
  return encoder.encode(s) as Bytes;
}

/** text reads UTF-8 and throws a TypeError where it is none. */
export function text(b: Uint8Array): string {
  return decoder.decode(b);
}

/** concat joins pieces into new bytes. */
export function concat(...parts: Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** equal compares two pieces that are no secrets. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((v, i) => v === b[i]);
}

/** hex writes two lower-case digits a byte. */
export function hex(b: Uint8Array): string {
  let s = "";
  for (const v of b) s += v.toString(16).padStart(2, "0");
  return s;
}

/** unhex reads pairs of digits of either case and throws a RangeError at anything else. */
export function unhex(s: string): Bytes {
  if (s.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(s)) throw new RangeError("not hexadecimal");
  const out = new Uint8Array(s.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = parseInt(s.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** random returns n bytes of the browser's generator. */
export function random(n: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(n));
}

/** sha256 hashes bytes that are all there; files are hashed by BLAKE3, see parcelwire.ts. */
export async function sha256(b: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", b));
}

/** cutText shortens a string to at most n bytes of UTF-8, at a character's end. */
export function cutText(s: string, n: number): string {
  const whole = s.toWellFormed();
  if (utf8(whole).length <= n) return whole;
  let out = "";
  let size = 0;
  for (const c of whole) {
    size += utf8(c).length;
    if (size > n) break;
    out += c;
  }
  return out;
}

/** nonce makes a 64-bit number that nobody can guess. */
export function nonce(): bigint {
  return new DataView(random(8).buffer).getBigUint64(0);
}

/**
 * invisible finds characters that show nothing: those that Unicode lets a font ignore, and symbols
 * without a picture. A variation selector behind a character that has registered forms is none.
 */
export const invisible =
  /(?![\u180b-\u180d\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}])\p{Default_Ignorable_Code_Point}|[\ufe00-\ufe0d\u2800\u{13441}\u{13442}\u{16fe4}\u{1d159}]|(?<![\p{S}#*0-9\u203c\u2049\u2139\u3030\u303d])[\ufe0e\ufe0f]|(?<!\p{Script=Han})[\u{e0100}-\u{e01ef}]|(?<!\p{Script=Mongolian})[\u180b-\u180d\u180f]/gu;
