// The datagrams of a channel that wait for their reader.

import type { Bytes } from "./bytes";

/** What is kept for each channel; then the oldest are dropped. */
const keptMost = 64;
const bytesMost = 128 << 10;

/** Queue is one channel's. */
export class Queue {
  readonly readable: ReadableStream<Bytes>;
  /** Those that came and were dropped. */
  dropped = 0;
  #kept: Bytes[] = [];
  #size = 0;
  #out: ReadableStreamDefaultController<Bytes> | undefined; // undefined when nobody reads any more
  #pull: (() => void) | undefined;
  #end: { why: Error | undefined } | undefined;

  constructor() {
    this.readable = new ReadableStream<Bytes>(
      {
        start: (c) => void (this.#out = c),
        pull: () => this.#next(),
        cancel: () => this.#leave(),
      },
      { highWaterMark: 0 },
    );
  }

  /** put takes one that has come. */
  put(b: Bytes): void {
    if (this.#end || !this.#out || b.length > bytesMost) {
      this.dropped++;
      return;
    }
    while (this.#kept.length >= keptMost || this.#size + b.length > bytesMost) {
      this.#size -= this.#kept.shift()!.length;
      this.dropped++;
    }
    this.#kept.push(b);
    this.#size += b.length;
    if (this.#pull) this.#hand();
  }

  /** end: no more will come. What waits can still be read. */
  end(why: Error | undefined): void {
    if (this.#end) return;
    this.#end = { why };
    if (this.#pull || this.#kept.length === 0) this.#hand();
  }

  #next(): Promise<void> | undefined {
    if (this.#kept.length > 0 || this.#end) {
      this.#hand();
      return undefined;
    }
    return new Promise((resolve) => (this.#pull = resolve));
  }

  #hand(): void {
    const pulled = this.#pull;
    this.#pull = undefined;
    const b = this.#kept.shift();
    if (b) {
      this.#size -= b.length;
      this.#out?.enqueue(b);
    } else if (this.#end) {
      if (this.#end.why) this.#out?.error(this.#end.why);
      else this.#out?.close();
      this.#out = undefined;
    }
    pulled?.();
  }

  #leave(): void {
    this.#kept = [];
    this.#size = 0;
    this.#out = undefined;
    this.#pull?.();
    this.#pull = undefined;
  }
}
