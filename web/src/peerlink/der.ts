// DER, as far as our certificates need it: definite, minimal lengths, tags of
// one byte, at most 64 KiB.

import { type Bytes, concat } from "./bytes";
import { IdentityError } from "./errors";

/** Tags of what our certificates are made of. */
export const Tag = {
  bool: 0x01, integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utf8: 0x0c, printable: 0x13,
  utcTime: 0x17, generalTime: 0x18, sequence: 0x30, set: 0x31, version: 0xa0, extensions: 0xa3,
} as const;

/** tlv lays one value out. */
export function tlv(tag: number, ...parts: Uint8Array[]): Bytes {
  const body = concat(...parts);
  const n = body.length;
  const length = n < 0x80 ? [n] : n < 0x100 ? [0x81, n] : [0x82, n >> 8, n & 0xff];
  if (n > 0xffff) throw new RangeError("DER of more than 64 KiB");
  return concat(new Uint8Array([tag, ...length]), body);
}

/** unsigned lays a non-negative integer out. */
export function unsigned(b: Uint8Array): Bytes {
  let at = 0;
  while (at < b.length - 1 && b[at] === 0) at++;
  const least = b.subarray(at);
  return tlv(Tag.integer, new Uint8Array((least[0] ?? 0) >= 0x80 ? [0] : []), least);
}

/** Value is one piece of DER. */
export interface Value {
  tag: number;
  body: Bytes;
  raw: Bytes; // with tag and length
}

/** Der reads the values of b, one after another. */
export class Der {
  #at = 0;

  constructor(private readonly b: Bytes) {}

  get done(): boolean {
    return this.#at === this.b.length;
  }

  /** peek is the next value's tag; undefined at the end. */
  peek(): number | undefined {
    return this.b[this.#at];
  }

  /** any reads a value of whatever tag. */
  any(): Value {
    const start = this.#at;
    const tag = this.#byte();
    if ((tag & 0x1f) === 0x1f) throw new IdentityError("DER: a tag of several bytes");
    let n = this.#byte();
    if (n >= 0x80) {
      const width = n & 0x7f;
      if (width < 1 || width > 2) throw new IdentityError("DER: a length that is not taken");
      n = 0;
      for (let i = 0; i < width; i++) n = n * 256 + this.#byte();
      if (n < (width === 1 ? 0x80 : 0x100)) throw new IdentityError("DER: a length that is not minimal");
    }
    if (n > this.b.length - this.#at) throw new IdentityError(`DER: ${n} bytes announced, ${this.b.length - this.#at} are there`);
    this.#at += n;
    return { tag, body: this.b.subarray(this.#at - n, this.#at), raw: this.b.subarray(start, this.#at) };
  }

  /** want reads a value that must have this tag. */
  want(tag: number): Value {
    const v = this.any();
    if (v.tag !== tag) throw new IdentityError(`DER: tag 0x${v.tag.toString(16)}, want 0x${tag.toString(16)}`);
    return v;
  }

  /** into reads a value and returns a reader of what is in it. */
  into(tag: number): Der {
    return new Der(this.want(tag).body);
  }

  /** end throws if anything is left. */
  end(): void {
    if (!this.done) throw new IdentityError(`DER: ${this.b.length - this.#at} bytes after the end`);
  }

  #byte(): number {
    const v = this.b[this.#at++];
    if (v === undefined) throw new IdentityError("DER: it ends too soon");
    return v;
  }
}
