// A carrier over a data channel: binary messages are bytes of the stream, and
// the text "end" is its orderly end.

import { type Bytes } from "./bytes";
import type { Carrier, Datagrams, Sink } from "./carrier";
import { LostError, ProtocolError } from "./errors";
import { maxMessage } from "./signal";

const endMark = "end";
/** How many bytes may wait in the browser before data has to, and where it goes on. */
const sendHigh = 512 << 10;
const sendLow = 128 << 10;
/** What may wait before the proof is done and the link listens, in bytes. */
const inboxMost = 1 << 20;
/** How long a closed carrier goes on sending what waits, in milliseconds. */
const linger = 2000;

type Event = Bytes | string | Error;

/** Messages is a data channel whose messages wait until somebody takes them. */
export class Messages {
  #inbox: Event[] = [];
  #size = 0;
  #taker: ((e: Event) => void) | undefined;
  #over = false;

  constructor(readonly dc: RTCDataChannel) {
    dc.binaryType = "arraybuffer";
    dc.onmessage = (e) => this.#came(e.data as ArrayBuffer | string);
    dc.onclose = () => this.lost("the connection was lost");
  }

  /** lost ends it, once. */
  lost(why: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#give(new LostError(why));
  }

  send(m: Bytes | string): void {
    if (this.#over) return;
    try {
      if (typeof m === "string") this.dc.send(m);
      else this.dc.send(m);
    } catch {
      this.lost("the connection was lost");
    }
  }

  /** take calls each with what waits and with what comes. */
  take(each: (e: Event) => void): void {
    this.#taker = each;
    this.#size = 0;
    for (const e of this.#inbox.splice(0)) each(e);
  }

  /** receive waits for one message. */
  receive(): Promise<Bytes | string> {
    return new Promise((done, failed) => {
      const settle = (e: Event) => {
        this.#taker = undefined;
        if (e instanceof Error) failed(e);
        else done(e);
      };
      const first = this.#inbox.shift();
      if (first === undefined) this.#taker = settle;
      else {
        this.#size -= length(first);
        settle(first);
        if (first instanceof Error) this.#inbox.unshift(first);
      }
    });
  }

  #came(data: ArrayBuffer | string): void {
    if (this.#over) return;
    const m = typeof data === "string" ? data : new Uint8Array(data);
    if (m.length > maxMessage) this.lost(`the device sent a message of ${m.length} bytes`);
    else this.#give(m);
  }

  #give(e: Event): void {
    if (this.#taker) {
      this.#taker(e);
      return;
    }
    this.#size += length(e);
    if (this.#size > inboxMost) {
      this.#inbox = [new ProtocolError("the device sent too much before it was proven")];
      this.#over = true;
      return;
    }
    this.#inbox.push(e);
  }
}

function length(e: Event): number {
  return e instanceof Error ? 0 : e.length + 64;
}

/** The longest datagram: with all headers it fits the 1 280 bytes that every path carries. */
const datagramMost = 1100;
/** How many bytes of datagrams may wait in the browser. */
const datagramHigh = 64 << 10;

/** Loose is the second data channel: unordered, never repeated. What comes before the proof is lost. */
export class Loose implements Datagrams {
  readonly most = datagramMost;
  #dc: RTCDataChannel | undefined;
  #each: ((b: Bytes) => void) | undefined;

  /** use takes the channel; false where there is one already. */
  use(dc: RTCDataChannel): boolean {
    if (this.#dc) return false;
    this.#dc = dc;
    dc.binaryType = "arraybuffer";
    dc.onmessage = (e) => {
      if (!(e.data instanceof ArrayBuffer) || e.data.byteLength === 0) return;
      if (e.data.byteLength > datagramMost) dc.close();
      else this.#each?.(new Uint8Array(e.data));
    };
    return true;
  }

  send(b: Bytes): boolean {
    const dc = this.#dc;
    if (dc?.readyState !== "open" || dc.bufferedAmount > datagramHigh) return false;
    try {
      dc.send(b);
      return true;
    } catch {
      return false; // it is being closed
    }
  }

  take(each: (b: Bytes) => void): void {
    this.#each = each;
  }
}

/** DataChannelCarrier is made of a channel whose peer is proven. */
export class DataChannelCarrier implements Carrier {
  #ended = false;
  #closing = false;

  constructor(
    private readonly messages: Messages,
    private readonly largest: number,
    readonly path: string,
    readonly datagrams: Datagrams,
    private readonly hangUp: () => void,
  ) {}

  start(sink: Sink): void {
    const dc = this.messages.dc;
    dc.bufferedAmountLowThreshold = sendLow;
    dc.onbufferedamountlow = () => sink.drained();
    this.messages.take((e) => {
      if (this.#ended) return;
      if (typeof e === "string") {
        if (e !== endMark) return;
        this.#ended = true;
        sink.ended(undefined);
      } else if (e instanceof Error) {
        this.#ended = true;
        sink.ended(e);
        this.hangUp();
      } else if (e.length > 0) sink.data(e);
    });
  }

  send(b: Bytes): void {
    if (this.#closing) return;
    for (let at = 0; at < b.length; at += this.largest) this.messages.send(b.length <= this.largest ? b : b.subarray(at, at + this.largest));
  }

  get full(): boolean {
    return this.waiting > sendHigh;
  }

  get waiting(): number {
    return this.messages.dc.bufferedAmount;
  }

  close(): void {
    if (this.#closing) return;
    this.messages.send(endMark);
    this.#closing = true;
    const dc = this.messages.dc;
    const late = setTimeout(() => this.hangUp(), linger);
    const done = () => {
      clearTimeout(late);
      this.hangUp();
    };
    if (dc.readyState !== "open" || this.#ended) {
      done();
      return;
    }
    dc.bufferedAmountLowThreshold = 0;
    dc.onbufferedamountlow = () => setTimeout(done, 50); // what has left the buffer is to reach the wire
    if (dc.bufferedAmount === 0) setTimeout(done, 50);
  }
}
