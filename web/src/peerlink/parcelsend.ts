// The sender of a parcel of one file (docs/protocol.md, "Files"): it goes on
// over another channel where one was cut.

import { type Bytes, equal, hex, random } from "./bytes";
import type { Channel } from "./channel";
import { asError, ClosedError, DeclinedError, ProtocolError } from "./errors";
import { Input } from "./input";
import {
  decodeAnswer, decodeIndex, decodeKept, decodeReason, decodeWant, encode, encodeEntry, encodeOffer, encodePiece, encodeReason, type Frame,
  type Hash, idLen, Kind, minPiece, newHash, scheme, sumOf, version, type Want, Wire,
} from "./parcelwire";

/** How long, once the receiver has agreed, nothing may get through before the sender gives up, in milliseconds. */
const patience = 60_000;
const firstPause = 100;
const lastPause = 3000;
/** The largest piece that is sent, in bytes: larger ones are not faster, and a cut costs more. */
const bestPiece = 128 << 10;
/** The receiver may want something of an entry so often: to compare it, and its content. */
const maxAsked = 2;

/** SendEvents tell of a sending. They must not throw. */
export interface SendEvents {
  /** progress: so many bytes of the file are sent. */
  progress?(bytes: number): void;
  /** cut: the channel has ended, and another one is tried. */
  cut?(why: Error): void;
}

/** Final is an error that another channel would not help against. */
class Final extends Error {
  constructor(readonly why: Error) {
    super(why.message);
  }
}

/** FileSender sends one file. send may be called again after it has failed: the receiver goes on with what it has. */
export class FileSender {
  readonly #id = random(idLen);
  #agreed = false;
  #moved = 0; // grows when something got through
  #piece = minPiece;

  /** open opens a channel of a name to the receiver, again after a cut. */
  constructor(
    private readonly open: (name: string, signal: AbortSignal) => Promise<Channel>,
    private readonly name: string,
    private readonly file: Blob & { lastModified?: number },
    private readonly events: SendEvents = {},
  ) {}

  /**
   * send resolves with the file's BLAKE3 in hex when the receiver has verified
   * and kept it. It rejects with a DeclinedError where that was not wanted, with
   * the signal's reason when it aborts, and when nothing has got through for a
   * minute.
   */
  async send(signal: AbortSignal): Promise<string> {
    let good = performance.now();
    for (let pause = firstPause; ; pause = Math.min(2 * pause, lastPause)) {
      const before = this.#moved;
      try {
        return await this.#attempt(signal);
      } catch (e) {
        signal.throwIfAborted();
        if (e instanceof Final) throw e.why;
        const why = asError(e);
        if (this.#moved > before) [good, pause] = [performance.now(), firstPause];
        if (!this.#agreed || why instanceof ClosedError || performance.now() - good > patience) throw why;
        this.events.cut?.(why);
      }
      await rest(pause, signal);
    }
  }

  async #attempt(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const wire = new Wire(await this.open(scheme + hex(this.#id), signal));
    const stop = () => wire.cut(asError(signal.reason));
    signal.addEventListener("abort", stop, { once: true });
    let why: Error | undefined;
    try {
      if (signal.aborted) stop();
      return await this.#over(wire);
    } catch (e) {
      why = asError(e);
      throw e;
    } finally {
      signal.removeEventListener("abort", stop);
      if (why && !(why instanceof Final && !(why.why instanceof ProtocolError))) wire.cut(why);
      wire.end();
    }
  }

  /** #over sends what the receiver wants over one channel. */
  async #over(wire: Wire): Promise<string> {
    const { name, file } = this;
    await wire.send(encodeOffer({ version, id: this.#id, entries: 1, bytes: file.size, names: [name], lists: true }));
    const entry = encodeEntry({ index: 0, path: [name], folder: false, size: file.size, modified: file.lastModified ?? 0, executable: false });
    let first = await wire.next();
    if (first.kind === Kind.list) {
      await wire.send(entry);
      await wire.send(encode(Kind.end));
      first = await wire.next();
    }
    if (first.kind !== Kind.answer) throw outOfTurn(first);
    const answer = sound(() => decodeAnswer(first.body));
    if (!answer.accepted) throw new Final(new DeclinedError(answer.reason));
    this.#agreed = true;
    await wire.send(entry);
    let sum: Bytes | undefined; // of the whole content: from then on the receiver may keep it
    let asked = 0;
    let frame = await this.#hear(wire);
    for (;;) {
      if (frame.kind === Kind.kept && sum && sound(() => decodeKept(frame.body)).index === 0) {
        await wire.send(encode(Kind.end));
        this.events.progress?.(file.size);
        return hex(sum);
      }
      if (frame.kind === Kind.failed) throw await this.#failed(wire, frame);
      if (++asked > maxAsked) throw outOfTurn(frame);
      const reply = this.#hear(wire);
      reply.catch(() => {}); // asked for below
      if (frame.kind === Kind.compare && sound(() => decodeIndex(frame.body)) === 0) {
        sum = sumOf(await this.#hashed(wire, file.size));
        await wire.send(encode(Kind.digest, 0, sum));
      } else if (frame.kind === Kind.want) sum = await this.#content(wire, sound(() => decodeWant(frame.body)), reply);
      else throw outOfTurn(frame);
      frame = await reply;
    }
  }

  async #hear(wire: Wire): Promise<Frame> {
    const frame = await wire.next();
    this.#moved++;
    return frame;
  }

  /** #failed returns why the receiver did not take the file. */
  async #failed(wire: Wire, frame: Frame): Promise<Final> {
    const { reason } = sound(() => decodeReason(frame.body));
    await wire.send(encode(Kind.end));
    return new Final(new Error(`the other device did not keep the file: ${reason}`));
  }

  /** #content sends the file from where the receiver has it. It stops where the receiver replies before the end. */
  async #content(wire: Wire, want: Want, reply: Promise<Frame>): Promise<Bytes | undefined> {
    const { file } = this;
    if (want.index !== 0 || want.offset > file.size) throw new Final(new ProtocolError(`entry ${want.index} is wanted, from ${want.offset}`));
    let hash = await this.#hashed(wire, want.offset);
    if (want.offset > 0 && !equal(sumOf(hash), want.sum)) {
      want.offset = 0;
      hash = newHash();
    }
    let replied = false;
    void reply.then(() => (replied = true), () => {}); // a cut ends the writing, too
    await wire.send(encode(Kind.start, 0, BigInt(want.offset)));
    const input = new Input(file.slice(want.offset).stream());
    let under = Promise.resolve(); // a piece that is being sent while the next is read and hashed
    try {
      for (let at = want.offset; ; ) {
        if (replied) {
          await under;
          await wire.send(encodeReason(Kind.broken, 0, ""));
          return undefined;
        }
        const n = Math.min(this.#piece, file.size - at);
        const content = n === 0 ? new Uint8Array(0) : await this.#read(wire, () => input.exactly(n));
        hash.update(content);
        const sum = sumOf(hash);
        await under;
        this.events.progress?.(at);
        at += n;
        under = this.#timed(() => wire.send(encodePiece(content, sum)));
        under.catch(() => {}); // the next wait for it tells
        if (at < file.size) continue;
        await under;
        this.events.progress?.(at);
        return sum;
      }
    } finally {
      void input.drop();
    }
  }

  /** #hashed hashes the file's first n bytes. */
  async #hashed(wire: Wire, n: number): Promise<Hash> {
    const hash = newHash();
    const input = new Input(this.file.slice(0, n).stream());
    for (let left = n; left > 0; ) {
      const b = await this.#read(wire, () => input.exactly(Math.min(left, bestPiece)));
      hash.update(b);
      left -= b.length;
    }
    return hash;
  }

  /** #read reads the file, and breaks the entry where that fails. */
  async #read(wire: Wire, read: () => Promise<Bytes>): Promise<Bytes> {
    try {
      return await read();
    } catch {
      await wire.send(encodeReason(Kind.broken, 0, "it changed while it was sent: send it again"));
      await wire.send(encode(Kind.end));
      throw new Final(new Error("the file has changed, or is gone: choose it again"));
    }
  }

  /** #timed makes pieces larger while they are sent in a moment, and smaller on a slow path. */
  async #timed(send: () => Promise<void>): Promise<void> {
    const began = performance.now();
    await send();
    this.#moved++;
    const took = performance.now() - began;
    if (took < 50) this.#piece = Math.min(2 * this.#piece, bestPiece);
    else if (took > 500) this.#piece = Math.max(this.#piece / 2, minPiece);
  }
}

function outOfTurn(f: Frame): Final {
  return new Final(new ProtocolError(`a frame of kind ${f.kind} out of turn`));
}

/** sound has an error of decoding be the end of the transfer. */
function sound<T>(decode: () => T): T {
  try {
    return decode();
  } catch (e) {
    throw new Final(asError(e));
  }
}

function rest(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const late = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      done();
    }, ms);
    const stop = () => {
      clearTimeout(late);
      failed(asError(signal.reason));
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}
