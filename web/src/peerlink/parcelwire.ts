// The frames of a parcel (docs/protocol.md, "Files"):
//
//   length:uint32 | kind:uint8 | body[length]

import { blake3 } from "@noble/hashes/blake3.js";
import { type Bytes, concat, cutText } from "./bytes";
import type { Channel } from "./channel";
import { Code, LostError, ProtocolError } from "./errors";
import { Input, maxDepth } from "./input";
import { maxCount, pack, Reader, uint } from "./packed";

/** Scheme begins the names of channels that carry parcels; 32 hex digits follow. */
export const scheme = "files://";
export const version = 2;
export const idLen = 16;
export const sumLen = 32;
export const minPiece = 64 << 10;
export const maxPiece = 1 << 20;
const headLen = 5;
const maxMessage = 16 << 10;
export const maxNames = 16;
export const maxReason = 255;
/** The most entries that are announced and have no outcome. */
export const window = 256;
/** After how long something is sent lest the other side gives up, and when this side does. In milliseconds. */
const quiet = 15_000;
const silence = 60_000;
/** How long the other side has to read what was said last, in milliseconds. */
const lastWord = 5000;

/** Kind says what a frame is. */
export const Kind = {
  nothing: 0, offer: 1, answer: 2, entry: 3, compare: 4, digest: 5, want: 6, start: 8, piece: 9, broken: 10, kept: 11, failed: 12, end: 13, list: 14,
} as const;

/** Frame is a frame that was received: of a piece its content and sum, else a msgpack array. */
export interface Frame {
  kind: number;
  body: Bytes;
}

/** Offer is what a sender wants to send: at most so many files and folders, and bytes. */
export interface Offer {
  version: number;
  id: Bytes;
  entries: number;
  bytes: number;
  names: string[];
  /** It tells its entries before an answer, when asked to. A page does not ask. */
  lists?: boolean;
}

/** Entry is one file or folder. */
export interface Entry {
  index: number;
  path: string[];
  folder: boolean;
  size: number;
  /** Of the last change, in milliseconds since 1970; 0: unknown. */
  modified: number;
  executable: boolean;
}

/** Want asks for a file's content from an offset on; sum is of what is there up to it. */
export interface Want {
  index: number;
  offset: number;
  sum: Bytes;
}

/** encode lays a message out. */
export function encode(kind: number, ...elements: unknown[]): Bytes {
  const body = pack(elements);
  if (body.length > maxMessage) throw new RangeError(`a message of ${body.length} bytes, at most ${maxMessage} may be sent`);
  return lay(kind, body);
}

/** encodePiece lays a piece out: content, and the sum of all up to its end. */
export function encodePiece(content: Uint8Array, sum: Uint8Array): Bytes {
  return lay(Kind.piece, content, sum);
}

function lay(kind: number, ...body: Uint8Array[]): Bytes {
  const head = new Uint8Array(headLen);
  new DataView(head.buffer).setUint32(0, body.reduce((n, b) => n + b.length, 0));
  head[headLen - 1] = kind;
  return concat(head, ...body);
}

export function encodeOffer(o: Offer): Bytes {
  return encode(Kind.offer, o.version, o.id, uint(o.entries), uint(o.bytes), o.names, ...(o.lists ? [true] : []));
}

export function encodeEntry(e: Entry): Bytes {
  return encode(Kind.entry, uint(e.index), e.path, e.folder, uint(e.size), uint(e.modified), e.executable);
}

export function encodeWant(w: Want): Bytes {
  return encode(Kind.want, uint(w.index), uint(w.offset), w.sum);
}

/** encodeReason lays out broken and failed. */
export function encodeReason(kind: number, index: number, why: string): Bytes {
  return encode(kind, uint(index), cutText(why, maxReason));
}

/** fields reads a message of want elements; what follows them is of a later version. */
function fields<T>(body: Bytes, want: number, read: (r: Reader) => T): T {
  const r = new Reader(body);
  const n = r.array(maxCount);
  if (n < want) throw new ProtocolError(`a message of ${n} elements, want ${want}`);
  return read(r);
}

const most = Number.MAX_SAFE_INTEGER;

function strings(r: Reader, count: number, each: number): string[] {
  return Array.from({ length: r.array(count) }, () => r.str(each));
}

export function decodeOffer(b: Bytes): Offer {
  return fields(b, 5, (r) => ({ version: r.uint(0xffffffff), id: r.exactly(idLen), entries: r.uint(most), bytes: r.uint(most), names: strings(r, maxNames, 255) }));
}

export function decodeAnswer(b: Bytes): { accepted: boolean; reason: string } {
  return fields(b, 2, (r) => ({ accepted: r.bool(), reason: r.str(maxReason) }));
}

export function decodeEntry(b: Bytes): Entry {
  return fields(b, 6, (r) => ({ index: r.uint(most), path: strings(r, maxDepth, maxMessage), folder: r.bool(), size: r.uint(most), modified: r.uint(most), executable: r.bool() }));
}

export function decodeWant(b: Bytes): Want {
  return fields(b, 3, (r) => {
    const w = { index: r.uint(most), offset: r.uint(most), sum: r.bin(sumLen) };
    if (w.sum.length !== (w.offset === 0 ? 0 : sumLen)) throw new ProtocolError(`a sum of ${w.sum.length} bytes with an offset of ${w.offset}`);
    return w;
  });
}

export function decodeDigest(b: Bytes): { index: number; sum: Bytes } {
  return fields(b, 2, (r) => ({ index: r.uint(most), sum: r.exactly(sumLen) }));
}

export function decodeStart(b: Bytes): { index: number; from: number } {
  return fields(b, 2, (r) => ({ index: r.uint(most), from: r.uint(most) }));
}

/** decodeIndex reads the first element of compare, kept, broken and failed. */
export function decodeIndex(b: Bytes): number {
  return fields(b, 1, (r) => r.uint(most));
}

/** decodeReason reads broken and failed. */
export function decodeReason(b: Bytes): { index: number; reason: string } {
  return fields(b, 2, (r) => ({ index: r.uint(most), reason: r.str(maxReason) }));
}

export function decodeKept(b: Bytes): { index: number; name: string; same: boolean } {
  return fields(b, 3, (r) => ({ index: r.uint(most), name: r.str(maxMessage), same: r.bool() }));
}

/** Hash is a running BLAKE3; a copy goes its own way. */
export type Hash = ReturnType<typeof blake3.create>;

export function newHash(): Hash {
  return blake3.create();
}

/** sumOf returns the sum of what a hash was given so far. */
export function sumOf(h: Hash): Bytes {
  return h.clone().digest() as Bytes;
}

/** Wire sends and receives the frames of one channel. It ends the channel after 60 s of silence. */
export class Wire {
  readonly #input: Input;
  readonly #out: WritableStreamDefaultWriter<Uint8Array>;
  readonly #clock: ReturnType<typeof setInterval>;
  #why: Error | undefined; // this side has cut the channel
  #reading: number | undefined; // when a read that waits has begun, or a byte has come since
  #writing: number | undefined;
  #received = 0;
  #sent = 0;
  #wrote = performance.now();

  constructor(readonly channel: Channel) {
    this.#input = new Input(channel.readable);
    this.#out = channel.writable.getWriter();
    this.#out.closed.catch(() => {}); // writes tell
    this.#clock = setInterval(() => this.#tick(), quiet / 3);
  }

  /** next returns the next frame that says something. It allocates no more than a frame's bound. */
  async next(): Promise<Frame> {
    this.#reading = performance.now();
    try {
      for (;;) {
        const head = await this.#input.exactly(headLen);
        const n = new DataView(head.buffer, head.byteOffset).getUint32(0);
        const kind = head[headLen - 1]!;
        if (kind === Kind.piece && (n < sumLen || n > maxPiece + sumLen)) throw new ProtocolError(`a piece of ${n} bytes`);
        if (kind !== Kind.piece && n > maxMessage) throw new ProtocolError(`a message of ${n} bytes, at most ${maxMessage} are taken`);
        const body = await this.#input.exactly(n);
        if (kind !== Kind.nothing) return { kind, body };
      }
    } catch (e) {
      throw this.#why ?? e;
    } finally {
      this.#reading = undefined;
    }
  }

  /** send sends a frame and resolves when all of it is on its way. */
  async send(frame: Bytes): Promise<void> {
    this.#writing ??= performance.now();
    try {
      await this.#out.write(frame);
      this.#wrote = performance.now();
    } catch (e) {
      throw this.#why ?? e;
    } finally {
      this.#writing = undefined;
    }
  }

  /** cut resets the channel: reads and writes fail with why. */
  cut(why: Error, code: number = Code.aborted): void {
    this.#why ??= why;
    this.channel.reset(code);
  }

  /** end closes the channel: what was sent is delivered, and the other side has a while to close first, so that it reads it. */
  end(): void {
    clearInterval(this.#clock);
    void this.#out
      .close()
      .catch(() => {}) // it has been cut
      .then(() => Promise.race([this.channel.closed, new Promise((late) => setTimeout(late, lastWord))]))
      .then(() => {
        this.#out.releaseLock();
        void this.#input.drop();
        void this.channel.close();
      });
  }

  /** #tick says nothing where nothing was said, and ends what is silent. */
  #tick(): void {
    const now = performance.now();
    if (this.channel.received !== this.#received && this.#reading !== undefined) this.#reading = now;
    if (this.channel.sent !== this.#sent && this.#writing !== undefined) this.#writing = now;
    [this.#received, this.#sent] = [this.channel.received, this.channel.sent];
    for (const since of [this.#reading, this.#writing]) {
      if (since !== undefined && now - since > silence) this.cut(new LostError(`the other side was silent for ${silence / 1000} s`), Code.cancelled);
    }
    if (this.#writing === undefined && now - this.#wrote >= (quiet * 2) / 3 - 1) this.send(encode(Kind.nothing)).catch(() => {}); // the reader hears of it
  }
}
