// Messages that may wait, and their receipts (docs/protocol.md, "Chats"): kept
// by both devices, sent until the other one has said that it has them.

import { type Bytes, concat, cutText, hex, random, text, utf8 } from "./bytes";
import type { Channel } from "./channel";
import { asError, Code, LostError, ProtocolError } from "./errors";
import { Input } from "./input";
import type { DeviceID } from "./keys";
import { FullError, type Message, type MessageStore } from "./messagestore";

/** Under which name of a channel messages are exchanged. */
export const messagesURI = "message://1";
/** The longest text, in bytes of UTF-8. */
export const maxText = 64 << 10;
/** A text of control characters is six times as long in JSON. */
const maxFrame = 6 * maxText + 1024;
const maxReason = 255;
const idLen = 16;
/** A device that cannot be reached is tried again after the first pause, doubled up to the last, in milliseconds. */
const firstPause = 1000;
const lastPause = 300_000;
/** How long the receiver may take to have a message on its disk, in milliseconds. */
const receiptWithin = 30_000;
/** How many messages are under way before the first receipt. */
const atOnce = 64;

/** Letter is a message on the wire. */
export interface Letter {
  id: string;
  at: number;
  text: string;
}

/** Receipt answers a letter: why is "" for a yes. */
export interface Receipt {
  id: string;
  why: string;
}

/** checkText tells why a text cannot be sent; "" if it can. */
export function checkText(s: string): string {
  if (s === "") return "a message of nothing";
  const n = utf8(s).length;
  return n > maxText ? `a message of ${n} bytes: at most ${maxText} are sent (send a file)` : "";
}

function framed(v: unknown): Bytes {
  const body = utf8(JSON.stringify(v));
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, body.length);
  return concat(head, body);
}

export function encodeLetter(l: Letter): Bytes {
  return framed({ id: l.id, at: l.at, text: l.text.toWellFormed() });
}

export function encodeReceipt(r: Receipt): Bytes {
  return framed(r.why === "" ? { ack: r.id } : { no: r.id, why: cutText(r.why, maxReason) });
}

function parse(b: Bytes): Record<string, unknown> {
  let v: unknown;
  try {
    v = JSON.parse(text(b));
  } catch {
    throw new ProtocolError("a message that is no JSON");
  }
  if (typeof v !== "object" || v === null || Array.isArray(v)) throw new ProtocolError("a message that is no object");
  return v as Record<string, unknown>;
}

function parseID(v: unknown): string {
  const s = typeof v === "string" ? v : "";
  if (!/^[0-9a-fA-F]{32}$/.test(s)) throw new ProtocolError("a message without an id of 32 hexadecimal digits");
  return s.toLowerCase();
}

/** decodeLetter reads a letter of a stranger. Further keys are of a newer release. */
export function decodeLetter(b: Bytes): Letter {
  const { id, at = 0, text: said = "" } = parse(b);
  if (typeof at !== "number" || !Number.isInteger(at) || typeof said !== "string") throw new ProtocolError("a message with a time or a text that is none");
  return { id: parseID(id), at, text: said.toWellFormed() };
}

export function decodeReceipt(b: Bytes): Receipt {
  const { ack, no, why } = parse(b);
  if (ack !== undefined) return { id: parseID(ack), why: "" };
  return { id: parseID(no), why: (typeof why === "string" && cutText(why, maxReason)) || "no reason was given" };
}

/** receive returns the next message's bytes; undefined after a clean end. It holds no more than has come. */
export async function receive(input: Input): Promise<Bytes | undefined> {
  const head = await input.next(4);
  if (!head) return undefined;
  const n = new DataView(head.buffer, head.byteOffset).getUint32(0);
  if (n > maxFrame) throw new ProtocolError(`a message of ${n} bytes, at most ${maxFrame} are taken`);
  return input.exactly(n);
}

/** Sender sends what waits for one device, until nothing does. */
interface Sender {
  wake: () => void;
  over: boolean;
}

/** Messenger exchanges messages with all devices. */
export class Messenger {
  readonly #senders = new Map<DeviceID, Sender>();
  readonly #over = new AbortController();

  /** told hears of each new message, and of each change of a mark. It must not throw. */
  constructor(
    private readonly store: MessageStore,
    private readonly open: (peer: DeviceID, name: string, signal: AbortSignal) => Promise<Channel>,
    private readonly told: (m: Message) => void,
  ) {
    for (const peer of store.waitingFor()) this.#wake(peer);
  }

  /** close ends all exchanges; what has no receipt is sent again by the next Messenger. */
  close(): void {
    this.#over.abort(new LostError("the messages were stopped"));
    for (const s of this.#senders.values()) s.wake();
  }

  /** send keeps a message for a device and resolves then; it is sent as soon as the device can be reached. */
  async send(peer: DeviceID, said: string): Promise<Message> {
    const bad = checkText(said);
    if (bad !== "") throw new Error(bad);
    const m = await this.store.add({ peer, id: hex(random(idLen)), mine: true, text: said.toWellFormed(), at: Date.now(), mark: "waiting", reason: "" });
    if (!m) throw new Error("two messages with one id"); // as likely as a broken generator
    this.told(m);
    this.#wake(peer);
    return m;
  }

  /** connected has what waits for a device sent at once. */
  connected(peer: DeviceID): void {
    this.#senders.get(peer)?.wake();
  }

  /** take stores what a device sends over a channel, and says so, until there is no more. It rejects where that was no clean end. */
  async take(peer: DeviceID, channel: Channel): Promise<void> {
    const input = new Input(channel.readable);
    const out = channel.writable.getWriter();
    const stop = () => channel.reset(Code.aborted);
    this.#over.signal.addEventListener("abort", stop, { once: true });
    try {
      for (;;) {
        const b = await within(lastPause, channel, receive(input));
        if (!b) return;
        const receipt = await this.#keep(peer, decodeLetter(b));
        await within(receiptWithin, channel, out.write(encodeReceipt(receipt)));
      }
    } catch (e) {
      channel.reset(e instanceof ProtocolError ? Code.protocol : Code.aborted);
      throw e;
    } finally {
      this.#over.signal.removeEventListener("abort", stop);
      out.releaseLock();
      void input.drop();
      void channel.close();
    }
  }

  async #keep(peer: DeviceID, l: Letter): Promise<Receipt> {
    const bad = checkText(l.text);
    if (bad !== "") return { id: l.id, why: bad };
    const at = l.at >= 0 && l.at < 253402300800_000 ? l.at : Date.now(); // up to the year 9999: else a clock that was never set
    try {
      const m = await this.store.add({ peer, id: l.id, mine: false, text: l.text, at, mark: "", reason: "" });
      if (m) this.told(m);
      return { id: l.id, why: "" };
    } catch (e) {
      if (e instanceof FullError) return { id: l.id, why: "the receiver has no room for another conversation" };
      throw e; // without a receipt it comes again
    }
  }

  #wake(peer: DeviceID): void {
    const s = this.#senders.get(peer);
    if (s) return s.wake();
    if (this.#over.signal.aborted) return;
    const sender: Sender = { wake: () => (sender.over = false), over: false };
    this.#senders.set(peer, sender);
    void this.#sendAll(peer, sender);
  }

  async #sendAll(peer: DeviceID, s: Sender): Promise<void> {
    let pause = firstPause;
    while (!this.#over.signal.aborted) {
      s.over = true; // unless it is woken from here on
      try {
        await this.#deliver(peer);
        if (s.over) break;
        pause = firstPause;
      } catch {
        if (!s.over) continue; // there is something new, or the device has just come
        const woken = await new Promise<boolean>((done) => {
          const late = setTimeout(done, pause, false);
          s.wake = () => {
            clearTimeout(late);
            done(true);
          };
        });
        s.wake = () => (s.over = false);
        pause = woken ? firstPause : Math.min(2 * pause, lastPause);
      }
    }
    this.#senders.delete(peer);
  }

  /** #deliver sends all that waits for a device, over one channel. */
  async #deliver(peer: DeviceID): Promise<void> {
    let batch = this.store.waiting(peer, atOnce);
    if (batch.length === 0) return;
    const channel = await this.open(peer, messagesURI, this.#over.signal);
    const input = new Input(channel.readable);
    const out = channel.writable.getWriter();
    const stop = () => channel.reset(Code.aborted);
    this.#over.signal.addEventListener("abort", stop, { once: true });
    try {
      for (; batch.length > 0; batch = this.store.waiting(peer, atOnce)) await within(receiptWithin, channel, this.#exchange(input, out, batch));
      await out.close();
    } catch (e) {
      channel.reset(Code.aborted);
      throw e;
    } finally {
      this.#over.signal.removeEventListener("abort", stop);
      out.releaseLock();
      void input.drop();
      void channel.close();
    }
  }

  /** #exchange sends a few messages and reads their receipts, which come in order. */
  async #exchange(input: Input, out: WritableStreamDefaultWriter<Uint8Array>, batch: Message[]): Promise<void> {
    const written = (async () => {
      for (const m of batch) await out.write(encodeLetter(m));
    })();
    written.catch(() => {}); // the reader hears of it, too
    for (const m of batch) {
      const b = await receive(input);
      if (!b) throw new LostError("the device took no more messages");
      const r = decodeReceipt(b);
      if (r.id !== m.id) throw new ProtocolError("a receipt for another message");
      this.told(await this.store.mark(m, r.why === "" ? "delivered" : "failed", r.why));
    }
    await written;
  }
}

/** within resets a channel on which something takes too long. */
async function within<T>(ms: number, channel: Channel, what: Promise<T>): Promise<T> {
  const late = setTimeout(() => channel.reset(Code.cancelled), ms);
  try {
    return await what;
  } catch (e) {
    throw asError(e);
  } finally {
    clearTimeout(late);
  }
}
