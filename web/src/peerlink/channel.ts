// A channel of a link, as a ReadableStream and a WritableStream.

import { type Bytes, concat } from "./bytes";
import { Queue } from "./datagram";
import { ClosedError, Code, type DeclinedError, ProtocolError, ResetError } from "./errors";
import { earlyCredit, maxWindow } from "./wire";

/** Window of a channel in bytes: at first, and the most it grows to. */
export const firstWindow = 256 << 10;
export const largestWindow = 4 << 20;

/** Line is what a channel needs of its link. Frames go out in the order of the calls. */
export interface Line {
  /** may asks for a turn to send data; the channel's turn() is called when it has come. */
  may(c: Channel): void;
  data(id: number, b: Uint8Array): void;
  end(id: number): void;
  reset(id: number, code: number): void;
  grant(id: number, bytes: number): void;
  /** datagram sends one beside the stream; false says that it was dropped. */
  datagram(id: number, b: Uint8Array): boolean;
  /** The longest datagram in bytes, 0 where the carrier or the peer has none. */
  readonly maxDatagram: number;
  /** settled is called when both directions have ended. */
  settled(c: Channel): void;
  /** roundTrip in milliseconds, 0 while unknown. */
  readonly roundTrip: number;
}

/** pieces yields what a stream brings; who stops early cancels it. Not every browser's streams can be iterated. */
export async function* pieces<T>(stream: ReadableStream<T>): AsyncGenerator<T, void, void> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    void reader.cancel().catch(() => {}); // it has ended already
  }
}

interface Write {
  chunk: Uint8Array;
  done: () => void;
  failed: (e: Error) => void;
}

/**
 * Channel is a stream in both directions. Closing writable ends one direction;
 * readable ends after the peer's clean end and errors after anything else.
 * Cancelling readable drops what comes; aborting writable resets the channel.
 */
export class Channel {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Uint8Array>;
  /** The peer's datagrams, each whole: 64 of them, or 128 KiB, wait to be read, then the oldest are dropped. */
  readonly datagrams: ReadableStream<Bytes>;
  readonly #datagrams = new Queue();
  /** Settles when both directions have ended, with why if that was no clean end. */
  readonly closed: Promise<Error | undefined>;
  #settle!: (why: Error | undefined) => void;

  // What the peer sends.
  #queue: Bytes[] = [];
  #unread = 0;
  #window: number; // what is announced when nothing is unread
  #credit: number; // bytes that the peer may still send
  #owed = 0; // read, and not granted yet
  #lastGrant = 0;
  #in: ReadableStreamDefaultController<Bytes> | undefined; // undefined when the reader needs nothing more
  #pull: (() => void) | undefined; // wakes the reader
  #inputEnd: { why: Error | undefined } | undefined; // behind what is unread
  #peerEnded = false;

  // What this side sends.
  #out: WritableStreamDefaultController | undefined;
  #write: Write | undefined;
  #allowed: number; // bytes that may still be sent
  #sentEnd = false;
  #sentReset = false;
  #left = false; // the asker reads nothing, but what it wrote is to be decided

  #over = false;
  #why: Error | undefined;

  /** Bytes of data received and sent. */
  received = 0;
  sent = 0;

  /** Links make channels; nobody else does. */
  constructor(
    readonly id: number,
    readonly name: string,
    private readonly line: Line,
    allowed: number,
    window: number,
  ) {
    this.#allowed = allowed;
    this.#window = this.#credit = window;
    this.closed = new Promise((resolve) => (this.#settle = resolve));
    this.datagrams = this.#datagrams.readable;
    this.readable = new ReadableStream<Bytes>(
      {
        start: (c) => void (this.#in = c),
        pull: () => this.#read(),
        cancel: () => this.#drop(),
      },
      { highWaterMark: 0 },
    );
    this.writable = new WritableStream<Uint8Array>(
      {
        start: (c) => void (this.#out = c),
        write: (chunk) => this.#send(chunk),
        close: () => this.#finish(),
        abort: () => this.reset(Code.aborted),
      },
      { highWaterMark: 1 },
    );
  }

  /** What this side is ready to receive, for the request or its answer. */
  get window(): number {
    return this.#window;
  }

  /** The longest datagram that can be sent, in bytes; 0 where the connection or the peer has none. */
  get maxDatagram(): number {
    return this.line.maxDatagram;
  }

  /** Datagrams of the peer that were not read in time. */
  get datagramsDropped(): number {
    return this.#datagrams.dropped;
  }

  /**
   * sendDatagram sends 1 to maxDatagram bytes once: they arrive whole, in no
   * order, or not at all. It never waits; false says that they were not even
   * sent, as too many wait or there are no datagrams. It throws where the
   * channel has ended.
   */
  sendDatagram(b: Uint8Array): boolean {
    if (this.#sentEnd) throw this.#why ?? new ClosedError();
    const most = this.line.maxDatagram;
    if (b.length === 0 || (most > 0 && b.length > most)) throw new RangeError(`a datagram of ${b.length} bytes, 1 to ${most} can be sent`);
    return most > 0 && this.line.datagram(this.id, b);
  }

  /** reset cuts both directions with a code; a direction that has ended stays so. */
  reset(code: number = Code.cancelled): void {
    if (this.#over || this.#sentReset) return;
    const why = new ResetError(code, false);
    this.#sentEnd = this.#sentReset = true;
    this.line.reset(this.id, code);
    this.#fail(why, "drop");
    this.#settled();
  }

  /** close ends the channel in both directions: what was written is still delivered. */
  async close(): Promise<void> {
    if (this.#over) return;
    try {
      if (!this.#sentEnd && !this.writable.locked) await this.writable.close();
    } catch {
      return; // it has been cut meanwhile
    }
    if (this.#write) {
      this.reset(Code.aborted); // its writer was not done
      return;
    }
    this.#finish();
    this.#drop();
  }

  // What the link calls.

  /** deliver takes data; false says that the peer has sent past its credit. */
  deliver(b: Bytes): boolean {
    if (this.#peerEnded) throw new ProtocolError(`data on channel ${this.id} after its end`);
    if (this.#sentReset) return true; // was under way
    if (b.length > this.#credit) return false;
    this.#credit -= b.length;
    this.received += b.length;
    if (!this.#in) {
      this.#consumed(b.length);
      return true;
    }
    this.#queue.push(b);
    this.#unread += b.length;
    if (this.#pull) this.#hand();
    return true;
  }

  /** deliverDatagram takes one of the peer's. */
  deliverDatagram(b: Bytes): void {
    if (!this.#peerEnded && !this.#sentReset) this.#datagrams.put(b);
  }

  /** ended takes the clean end of the peer's direction. */
  ended(): void {
    if (this.#peerEnded) throw new ProtocolError(`channel ${this.id} ended twice`);
    this.#peerEnded = true;
    this.#inputEnd ??= { why: undefined };
    this.#datagrams.end(undefined);
    if (this.#pull) this.#hand();
    this.#settled();
  }

  /** wasReset takes the peer's reset, and answers it unless a request is to be decided still. */
  wasReset(code: number, undecided: boolean): void {
    const why = new ResetError(code, true);
    if (undecided && this.#peerEnded) {
      this.#left = true;
      this.#failWrites(why);
      return;
    }
    if (!this.#sentEnd) this.line.end(this.id);
    this.#sentEnd = this.#peerEnded = true;
    this.#fail(why, "read first");
    this.#settled();
  }

  /** decided is called when the request was accepted. */
  decided(): void {
    if (this.#left) this.#finish();
  }

  /** wasDeclined takes the peer's no, which is its end. */
  wasDeclined(why: DeclinedError): void {
    if (this.#peerEnded) return;
    if (!this.#sentEnd) this.line.end(this.id);
    this.#sentEnd = this.#peerEnded = true;
    this.#fail(why, "drop");
    this.#settled();
  }

  /** refuse is this side's no, which is its end: what comes is dropped until the peer ends. */
  refuse(): void {
    this.#sentEnd = this.#sentReset = true;
    this.#fail(new ClosedError("declined here"), "drop");
    this.#settled();
  }

  /** fail ends everything, as the link has ended. What was received can still be read. */
  fail(why: Error): void {
    if (this.#over) return;
    this.#sentEnd = this.#peerEnded = true;
    this.#fail(why, "read first");
    this.#settled();
  }

  /** granted adds to what may be sent. */
  granted(bytes: number): void {
    this.#allowed += bytes;
    if (this.#allowed > maxWindow) throw new ProtocolError(`more than ${maxWindow} bytes of credit on channel ${this.id}`);
    if (this.#write) this.line.may(this);
  }

  /** accepted takes the answerer's window, beyond what was allowed before. */
  accepted(window: number): void {
    this.granted(window - earlyCredit);
  }

  /** turn sends at most most bytes of what waits, and tells whether more could follow. */
  turn(most: number): boolean {
    const w = this.#write;
    if (!w || this.#sentEnd) return false;
    const n = Math.min(most, this.#allowed, w.chunk.length);
    if (n === 0) return false;
    this.line.data(this.id, w.chunk.subarray(0, n));
    this.#allowed -= n;
    this.sent += n;
    w.chunk = w.chunk.subarray(n);
    if (w.chunk.length > 0) return this.#allowed > 0;
    this.#write = undefined;
    w.done();
    return false;
  }

  // Reading.

  #read(): Promise<void> | undefined {
    if (this.#unread > 0 || this.#inputEnd) {
      this.#hand();
      return undefined;
    }
    return new Promise((resolve) => (this.#pull = resolve));
  }

  /** #hand gives the reader all that has come, in one piece, or the end. */
  #hand(): void {
    const pulled = this.#pull;
    this.#pull = undefined;
    if (this.#unread > 0) {
      const n = this.#unread;
      const all = this.#queue.length === 1 ? this.#queue[0]! : concat(...this.#queue);
      this.#queue = [];
      this.#unread = 0;
      this.#in?.enqueue(all);
      this.#consumed(n);
    } else if (this.#inputEnd && this.#in) {
      if (this.#inputEnd.why) this.#in.error(this.#inputEnd.why);
      else this.#in.close();
      this.#in = undefined;
    }
    pulled?.();
  }

  /** #consumed grants what was read, in pieces that are worth a message. */
  #consumed(n: number): void {
    this.#owed += n;
    const piece = Math.max(Math.ceil(this.#window / 8), Math.min(128 << 10, this.#window / 2));
    if (this.#peerEnded || this.#sentReset || this.#owed < piece) return;
    const grant = this.#owed + this.#growth();
    this.#owed = 0;
    this.#credit += grant;
    this.line.grant(this.id, grant);
  }

  /** #growth widens a window that is used up faster than twice a round trip. */
  #growth(): number {
    const now = performance.now();
    const took = now - this.#lastGrant;
    this.#lastGrant = now;
    const rate = this.#owed / Math.max(took, 0.1); // bytes a millisecond
    const wanted = Math.min(2 * rate * this.line.roundTrip, 2 * this.#window, largestWindow);
    const more = Math.max(0, Math.floor(wanted - this.#window));
    this.#window += more;
    return more;
  }

  /** #drop is the reader's end: nothing is kept any more. */
  #drop(): void {
    const n = this.#unread;
    this.#queue = [];
    this.#unread = 0;
    this.#in = undefined;
    this.#pull?.();
    this.#pull = undefined;
    this.#leave();
    if (n > 0) this.#consumed(n);
  }

  /** #leave tells the peer that nobody reads, once this side has nothing to say either. */
  #leave(): void {
    if (!this.#sentEnd || this.#sentReset || this.#peerEnded || this.#in) return;
    this.#sentReset = true;
    this.line.reset(this.id, Code.closed);
  }

  // Writing.

  #send(chunk: Uint8Array): Promise<void> {
    if (this.#sentEnd) return Promise.reject(this.#why ?? new ClosedError());
    if (chunk.length === 0) return Promise.resolve(); // an empty frame would be the end
    return new Promise((done, failed) => {
      this.#write = { chunk, done, failed };
      this.line.may(this);
    });
  }

  /** #finish ends this side's direction. */
  #finish(): void {
    if (this.#sentEnd) return;
    this.#sentEnd = true;
    this.line.end(this.id);
    this.#leave();
    this.#settled();
  }

  // Ending.

  /** #fail ends reader and writer with why. */
  #fail(why: Error, unread: "drop" | "read first"): void {
    this.#failWrites(why);
    const closedByPeer = why instanceof ResetError && why.remote && why.code === Code.closed;
    if (!closedByPeer) this.#why ??= why;
    this.#datagrams.end(why);
    if (this.#inputEnd && unread === "read first") return; // it had ended before
    this.#inputEnd = { why };
    if (unread === "drop") {
      this.#queue = [];
      this.#unread = 0;
    }
    if (this.#unread === 0) {
      this.#in?.error(why);
      this.#in = undefined;
      this.#pull?.();
      this.#pull = undefined;
    }
  }

  #failWrites(why: Error): void {
    const w = this.#write;
    this.#write = undefined;
    w?.failed(why);
    try {
      this.#out?.error(why);
    } catch {
      // closed already
    }
  }

  #settled(): void {
    if (this.#over || !this.#sentEnd || !this.#peerEnded) return;
    this.#over = true;
    this.line.settled(this);
    this.#settle(this.#why);
  }
}
