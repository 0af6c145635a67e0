// What a link runs over: an ordered, reliable stream of bytes.

import type { Bytes } from "./bytes";

/** Sink is who takes what a carrier brings. All calls come one after another. */
export interface Sink {
  /** data is called with the next bytes, which are the sink's to keep. */
  data(b: Bytes): void;
  /** ended is called once: undefined after the peer's orderly end, else why it broke. */
  ended(why: Error | undefined): void;
  /** drained is called when full has become false. */
  drained(): void;
}

/** Carrier is an ordered, reliable stream of bytes to a proven device. */
export interface Carrier {
  /** A description of the way of the bytes, for people. */
  readonly path: string;
  /** start begins to deliver; what came before waits. */
  start(sink: Sink): void;
  /** send takes bytes and never waits; on a broken carrier it does nothing. */
  send(b: Bytes): void;
  /** full says that enough bytes wait to be sent. Messages may still be sent, data should wait. */
  readonly full: boolean;
  /** waiting is how many bytes wait to be sent. */
  readonly waiting: number;
  /** close sends what waits, then an orderly end. */
  close(): void;
}

/** pair returns two ends of a carrier in memory, for tests and for loops within a page. */
export function pair(path = "memory"): [Carrier, Carrier] {
  const a = new End(path);
  const b = new End(path);
  a.far = b;
  b.far = a;
  return [a, b];
}

class End implements Carrier {
  far: End | undefined;
  readonly full = false;
  readonly waiting = 0;
  #sink: Sink | undefined;
  #early: (Bytes | Error | undefined)[] = [];
  #over = false;

  constructor(readonly path: string) {}

  start(sink: Sink): void {
    this.#sink = sink;
    for (const e of this.#early.splice(0)) this.#give(e);
  }

  send(b: Bytes): void {
    const copy = b.slice();
    if (!this.#over) queueMicrotask(() => this.far?.take(copy));
  }

  close(): void {
    if (this.#over) return;
    this.#over = true;
    queueMicrotask(() => this.far?.take(undefined));
  }

  /** cut breaks both ends, as a lost connection does. */
  cut(why: Error): void {
    this.take(why);
    this.far?.take(why);
    this.#over = true;
    if (this.far) this.far.#over = true;
  }

  take(e: Bytes | Error | undefined): void {
    if (this.#sink) this.#give(e);
    else this.#early.push(e);
  }

  #give(e: Bytes | Error | undefined): void {
    if (e instanceof Uint8Array) this.#sink?.data(e);
    else this.#sink?.ended(e);
  }
}
