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

/** Datagrams are a carrier's messages beside its stream: each arrives once and whole, or twice, or not at all. */
export interface Datagrams {
  /** The longest one, in bytes. */
  readonly most: number;
  /** send returns false where it was dropped at once. It never waits. */
  send(b: Bytes): boolean;
  /** take has each of the peer's given to each; those that came before are lost. */
  take(each: (b: Bytes) => void): void;
}

/** Carrier is an ordered, reliable stream of bytes to a proven device. */
export interface Carrier {
  /** undefined where the carrier has none. */
  readonly datagrams: Datagrams | undefined;
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
export function pair(path = "memory", kind: "stream" | "with datagrams" = "stream"): [Carrier, Carrier] {
  const a = new End(path);
  const b = new End(path);
  a.far = b;
  b.far = a;
  if (kind === "with datagrams") {
    a.datagrams = new LooseEnd(() => b.datagrams);
    b.datagrams = new LooseEnd(() => a.datagrams);
  }
  return [a, b];
}

class LooseEnd implements Datagrams {
  readonly most = 1100;
  each: ((b: Bytes) => void) | undefined;

  constructor(private readonly far: () => LooseEnd | undefined) {}

  send(b: Bytes): boolean {
    const copy = b.slice();
    queueMicrotask(() => this.far()?.each?.(copy));
    return true;
  }

  take(each: (b: Bytes) => void): void {
    this.each = each;
  }
}

class End implements Carrier {
  far: End | undefined;
  datagrams: LooseEnd | undefined;
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
