// MessagePack that a stranger sent. @msgpack/msgpack decodes; this Reader goes
// before it and checks each announced length, count and depth against what was
// received and what its caller allows, so that a header that announces 4 GiB
// costs nothing. After an error a Reader must not be used again.

import { decode, encode } from "@msgpack/msgpack";
import { type Bytes, text } from "./bytes";
import { ProtocolError } from "./errors";

/** Bounds of a skipped value (docs/protocol.md, introduction). */
export const maxDepth = 8;
export const maxCount = 64;

/** uint gives a whole number the form that the encoder writes as an integer. */
export function uint(n: number | bigint): number | bigint {
  return n > 0xffffffff ? BigInt(n) : Number(n);
}

/** pack encodes a value in its shortest form. Numbers beyond 32 bits go through uint. */
export function pack(v: unknown): Bytes {
  return encode(v, { useBigInt64: true }) as Bytes;
}

function fail(why: string): never {
  throw new ProtocolError(`malformed msgpack: ${why}`);
}

type Kind = "array" | "map" | "str" | "bin" | "uint" | "int" | "bool" | "other";

/** Head is what the first bytes of a value announce. */
interface Head {
  kind: Kind;
  head: number; // bytes before the content
  n: number; // elements of an array or map, bytes of content of anything else
}

/** Reader reads values of b, one after another. */
export class Reader {
  #at = 0;
  readonly #view: DataView;

  constructor(private readonly b: Bytes) {
    this.#view = new DataView(b.buffer, b.byteOffset, b.byteLength);
  }

  /** The number of bytes not read yet. */
  get left(): number {
    return this.b.length - this.#at;
  }

  /** array reads an array's head and returns its length, at most most. */
  array(most: number): number {
    return this.#count("array", most);
  }

  /** map reads a map's head and returns its number of pairs, at most most. */
  map(most: number): number {
    return this.#count("map", most);
  }

  /** str reads valid UTF-8 of at most most bytes. */
  str(most: number): string {
    const raw = this.#content("str", most);
    try {
      return text(raw);
    } catch {
      fail("string that is no UTF-8");
    }
  }

  /** bin reads a byte string of at most most bytes and returns a copy. */
  bin(most: number): Bytes {
    return this.#content("bin", most).slice();
  }

  /** exactly reads a byte string of n bytes. */
  exactly(n: number): Bytes {
    const b = this.bin(n);
    if (b.length !== n) fail(`${b.length} bytes, want ${n}`);
    return b;
  }

  /** big reads a non-negative integer of at most most. */
  big(most: bigint): bigint {
    const h = this.#need("uint", "int");
    const v = BigInt(decode(this.#take(h.head + h.n), { useBigInt64: true }) as number | bigint);
    if (v < 0n || v > most) fail(`integer ${v}, want 0 to ${most}`);
    return v;
  }

  /** uint is big for what fits a number. */
  uint(most: number): number {
    return Number(this.big(BigInt(most)));
  }

  /** bool reads true or false. */
  bool(): boolean {
    const h = this.#need("bool");
    return decode(this.#take(h.head)) as boolean;
  }

  /** skip passes over one value of any kind but extensions, within maxDepth and maxCount. */
  skip(depth = maxDepth): void {
    if (depth === 0) fail(`nested deeper than ${maxDepth}`);
    const h = this.#head();
    if (h.kind !== "array" && h.kind !== "map") {
      if (h.kind === "str") this.str(this.left);
      else this.#take(h.head + h.n);
      return;
    }
    const n = this.#count(h.kind, maxCount) * (h.kind === "map" ? 2 : 1);
    for (let i = 0; i < n; i++) this.skip(depth - 1);
  }

  /** rest skips n further elements; nothing may follow them. */
  rest(n: number): void {
    for (let i = 0; i < n; i++) this.skip();
    if (this.left > 0) fail(`${this.left} bytes after the end`);
  }

  #need(...kinds: Kind[]): Head {
    const h = this.#head();
    if (!kinds.includes(h.kind)) fail(`found ${h.kind}, want ${kinds[0]}`);
    return h;
  }

  #count(kind: "array" | "map", most: number): number {
    const h = this.#need(kind);
    this.#take(h.head);
    if (h.n > most) fail(`${kind} of ${h.n} elements, at most ${most} are taken`);
    if (h.n > this.left) fail(`${kind} of ${h.n} elements in ${this.left} bytes`);
    return h.n;
  }

  #content(kind: "str" | "bin", most: number): Bytes {
    const h = this.#need(kind);
    if (h.n > most) fail(`${kind} of ${h.n} bytes, at most ${most} are taken`);
    return this.#take(h.head + h.n).subarray(h.head);
  }

  #take(n: number): Bytes {
    if (n > this.left) fail(`${n} bytes announced, ${this.left} are there`);
    this.#at += n;
    return this.b.subarray(this.#at - n, this.#at);
  }

  /** #head looks at the next value without reading it. */
  #head(): Head {
    if (this.left === 0) fail("it ends too soon");
    const c = this.#view.getUint8(this.#at);
    if (c <= 0x7f) return { kind: "uint", head: 1, n: 0 };
    if (c <= 0x8f) return { kind: "map", head: 1, n: c & 15 };
    if (c <= 0x9f) return { kind: "array", head: 1, n: c & 15 };
    if (c <= 0xbf) return { kind: "str", head: 1, n: c & 31 };
    if (c >= 0xe0) return { kind: "int", head: 1, n: 0 };
    return this.#longHead(c);
  }

  #longHead(c: number): Head {
    const sized = (kind: Kind, width: number): Head => {
      if (1 + width > this.left) fail("it ends too soon");
      const at = this.#at + 1;
      const n = width === 1 ? this.#view.getUint8(at) : width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
      return { kind, head: 1 + width, n };
    };
    switch (c) {
      case 0xc0: // nil
        return { kind: "other", head: 1, n: 0 };
      case 0xc2:
      case 0xc3:
        return { kind: "bool", head: 1, n: 0 };
      case 0xca: // floats
        return { kind: "other", head: 1, n: 4 };
      case 0xcb:
        return { kind: "other", head: 1, n: 8 };
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return sized("bin", 1 << (c - 0xc4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return sized("str", 1 << (c - 0xd9));
      case 0xdc:
      case 0xdd:
        return sized("array", 2 << (c - 0xdc));
      case 0xde:
      case 0xdf:
        return sized("map", 2 << (c - 0xde));
    }
    if (c >= 0xcc && c <= 0xcf) return { kind: "uint", head: 1, n: 1 << (c - 0xcc) };
    if (c >= 0xd0 && c <= 0xd3) return { kind: "int", head: 1, n: 1 << (c - 0xd0) };
    fail(`type code 0x${c.toString(16)}`); // extensions, and the code that is never used
  }
}
