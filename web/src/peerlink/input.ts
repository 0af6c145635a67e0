// Exact numbers of bytes of a stream, and the names of files that come in one.

import { type Bytes, concat, invisible, utf8 } from "./bytes";
import { LostError } from "./errors";

/** Input reads exact numbers of bytes of a stream. One read at a time. */
export class Input {
  #kept: Bytes = new Uint8Array(0);
  readonly #reader: ReadableStreamDefaultReader<Bytes>;

  constructor(stream: ReadableStream<Bytes>) {
    this.#reader = stream.getReader();
  }

  /** some returns 1 to most bytes; undefined at the end. */
  async some(most: number): Promise<Bytes | undefined> {
    while (this.#kept.length === 0) {
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#kept = value;
    }
    const out = this.#kept.subarray(0, most);
    this.#kept = this.#kept.subarray(out.length);
    return out;
  }

  /** exactly returns n bytes. It holds no more than has come, and throws where the stream ends before. */
  async exactly(n: number): Promise<Bytes> {
    const b = await this.next(n);
    if (b) return b;
    throw new LostError(ended);
  }

  /** next is exactly, but undefined where the stream has ended before the first byte. */
  async next(n: number): Promise<Bytes | undefined> {
    const parts: Bytes[] = [];
    for (let left = n; left > 0; ) {
      const b = await this.some(left);
      if (!b && left === n) return undefined;
      if (!b) throw new LostError(ended);
      parts.push(b);
      left -= b.length;
    }
    return parts.length === 1 ? parts[0]! : concat(...parts);
  }

  /** drop gives up what is left. */
  async drop(): Promise<void> {
    await this.#reader.cancel().catch(() => {}); // it has ended already
  }
}

const ended = "the other device ended the channel in the middle";

/** Bounds of a path: elements and bytes, of one element and of all. */
export const maxDepth = 32;
const maxElement = 255;
const maxPath = 4000;
const devices = /^(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])$/;

const unsafe = new RegExp(`[\\\\:*?"<>|]|[^\\p{L}\\p{M}\\p{N}\\p{P}\\p{S} ]|^ |[ .]$|${invisible.source}`, "gu");

/**
 * cleanName makes an element of a foreign path into a name that is safe to show
 * and to save: what only some systems can have, and what is not printed, becomes
 * %XX. It throws where there is no such name (docs/protocol.md, "Files").
 */
export function cleanName(name: string): string {
  if (name === "" || name === "." || name === "..") throw new Error("it is no name");
  if (utf8(name).length > maxElement) throw new Error(`it has more than ${maxElement} bytes`);
  if (!name.isWellFormed()) throw new Error("it is not UTF-8");
  if (/[/\0]/.test(name)) throw new Error("it has a slash or a NUL");
  let out = name.normalize("NFC").replace(unsafe, percent).normalize("NFC");
  const [stem] = out.split(".", 1);
  if (devices.test(stem!.toUpperCase().replace(/ +$/, ""))) out = `${stem}_${out.slice(stem!.length)}`;
  if (utf8(out).length > maxElement) throw new Error(`it has more than ${maxElement} bytes when escaped`);
  return out;
}

function percent(c: string): string {
  return [...utf8(c)].map((b) => "%" + b.toString(16).toUpperCase().padStart(2, "0")).join("");
}

/** cleanPath is cleanName of a path's elements, joined by slashes. */
export function cleanPath(elements: string[]): string {
  if (elements.length === 0 || elements.length > maxDepth) throw new Error(`a path of ${elements.length} elements, 1 to ${maxDepth} are taken`);
  const out = elements.map(cleanName).join("/");
  if (utf8(out).length > maxPath) throw new Error(`a path of more than ${maxPath} bytes`);
  return out;
}

/** badFileName tells why a file of this name cannot be sent; "" if it can. */
export function badFileName(name: string): string {
  try {
    cleanName(name);
    return "";
  } catch (e) {
    return e instanceof Error ? e.message : String(e);
  }
}
