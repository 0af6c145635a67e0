// The receiver of parcels (docs/protocol.md, "Files"): verified piece by piece,
// and continued where a cut left them.

import { type Bytes, cutText, equal, hex } from "./bytes";
import type { Channel } from "./channel";
import { asError, Code, LostError, ProtocolError } from "./errors";
import { cleanName, cleanPath } from "./input";
import type { DeviceID } from "./keys";
import {
  decodeDigest, decodeEntry, decodeOffer, decodeReason, decodeStart, encode, encodeReason, encodeWant, type Entry, type Frame, type Hash,
  Kind, maxNames, maxReason, minPiece, newHash, type Offer, sumLen, sumOf, version, window, Wire,
} from "./parcelwire";

/** The most entries that an offer may have: each is shown. */
export const maxEntries = 1000;
/** Bounds of the parcels under way, of one device and of all. */
const perPeer = 8;
const maxSessions = 32;
/** How many parcels are remembered so that their senders may go on, and how long, in milliseconds. */
const maxParcels = 32;
const agreedFor = 3600_000;
/** How many files of a parcel wait for their content at once. */
const ahead = 16;

/** Offered is what a sender wants to send, checked. */
export interface Offered {
  from: DeviceID;
  /** The first names, at most 16, made safe. */
  names: string[];
  /** At most so many files and folders, and bytes. */
  entries: number;
  bytes: number;
}

/** Arriving is a file that comes. */
export interface Arriving {
  /** path is safe, with slashes between folders. */
  path: string;
  size: number;
}

/** FileSink is where a received file goes. */
export interface FileSink {
  write(b: Bytes): Promise<void>;
  /** keep is called once the whole content is verified. */
  keep(): Promise<void>;
  /** discard is called instead where it will not come whole. */
  discard(): Promise<void>;
}

/** Taking takes the files of one offer. What is told must not throw. */
export interface Taking {
  /** place makes room for a file; it rejects where there is none. */
  place(f: Arriving): Promise<FileSink>;
  /** moved: so many bytes of it are verified. */
  moved(f: Arriving, at: number): void;
  /** kept: it is whole, and has this BLAKE3, in hex. */
  kept(f: Arriving, sum: string, sink: FileSink): void;
  failed(f: Arriving, why: Error): void;
  /**
   * ended: the sender has no more, and kept of the offered entries are whole here;
   * or, with why, the channel was cut and the sender may come back.
   */
  ended(why: Error | undefined, kept: number): void;
}

/** Part is a file that is not whole yet, or is (then sum is there). */
interface Part {
  sink: FileSink;
  hash: Hash;
  at: number;
  sum?: Bytes;
}

/** Parcel is an offer that was agreed to. Its parts outlive channels. */
interface Parcel {
  from: DeviceID;
  offer: Offer;
  taking: Taking;
  parts: Map<string, Part>; // by path and size
  agreed: number; // when
  session: Session | undefined;
  claims: number; // how often its sender has come back: the last channel has it
  stopped: Error | undefined; // its sender is told so when it comes back
}

/** Receiver takes parcels over channels that it is given. */
export class Receiver {
  readonly #parcels = new Map<string, Parcel>(); // by device and id, the one that was used longest ago first
  readonly #sessions = new Map<DeviceID, number>();
  #all = 0;

  /**
   * offered is asked about each new offer. It resolves with what takes the files,
   * or rejects to decline, with an error; the sender is told its text. gone
   * aborts where the sender has left before the answer; stop ends the parcel once
   * it is taken, and its sender is told why.
   */
  constructor(private readonly offered: (o: Offered, gone: AbortSignal, stop: (why: Error) => void) => Promise<Taking>) {}

  /** serve receives a parcel over a channel until that ends. It rejects where the parcel was declined or the channel cut. */
  async serve(channel: Channel, from: DeviceID): Promise<void> {
    const wire = new Wire(channel);
    const mine = this.#sessions.get(from) ?? 0;
    const full = mine >= perPeer || this.#all >= maxSessions;
    this.#all++;
    this.#sessions.set(from, mine + 1);
    try {
      const first = await wire.next();
      if (first.kind !== Kind.offer) throw new ProtocolError(`a frame of kind ${first.kind} before an offer`);
      const offer = decodeOffer(first.body);
      if (full) throw await decline(wire, new Error("too many transfers at once"));
      await this.#receive(wire, from, offer);
    } catch (e) {
      if (!(e instanceof Declined)) wire.cut(asError(e), e instanceof ProtocolError ? Code.protocol : Code.aborted);
      throw e instanceof Declined ? e.why : e;
    } finally {
      this.#all--;
      const left = this.#sessions.get(from)! - 1;
      if (left > 0) this.#sessions.set(from, left);
      else this.#sessions.delete(from);
      wire.end();
    }
  }

  async #receive(wire: Wire, from: DeviceID, offer: Offer): Promise<void> {
    const heard = wire.next(); // nothing may come before the answer
    heard.catch(() => {}); // told by the session
    const { parcel, claim } = await this.#agree(wire, from, offer, heard);
    if (parcel.stopped) throw parcel.stopped;
    if (claim !== parcel.claims) throw cameBack(); // no await from here until it has its session
    const session = new Session(wire, parcel, heard, (key) => this.#partOf(parcel, key));
    parcel.session = session;
    session.done = session.run().finally(() => {
      if (parcel.session === session) parcel.session = undefined;
    });
    try {
      await session.done;
    } catch (e) {
      setTimeout(() => this.#bound(), agreedFor); // unless its sender has come back
      throw e;
    }
    this.#forget(parcel);
  }

  /** #agree returns the parcel of an offer, which may be one that was agreed to before, and this channel's claim to it: the highest counts. */
  async #agree(wire: Wire, from: DeviceID, offer: Offer, heard: Promise<Frame>): Promise<{ parcel: Parcel; claim: number }> {
    const key = `${from} ${hex(offer.id)}`;
    const known = this.#parcels.get(key);
    if (known && known.offer.entries === offer.entries && known.offer.bytes === offer.bytes && Date.now() - known.agreed < agreedFor) {
      if (known.stopped) throw await decline(wire, known.stopped);
      const claim = ++known.claims; // before any await: several channels may come back at once
      await known.session?.supersede();
      this.#parcels.delete(key);
      this.#parcels.set(key, known);
      await wire.send(encode(Kind.answer, true, ""));
      return { parcel: known, claim };
    }
    const gone = new AbortController();
    const early = heard.then((f) => Promise.reject(new ProtocolError(`a frame of kind ${f.kind} before the answer`)));
    early.catch((e) => gone.abort(e));
    let parcel: Parcel | undefined;
    try {
      const asked = this.offered(checked(from, offer), gone.signal, (why) => parcel && this.#stop(parcel, why));
      asked.catch(() => {}); // where the sender was quicker
      const taking = await Promise.race([asked, early]);
      parcel = { from, offer, taking, parts: new Map(), agreed: Date.now(), session: undefined, claims: 0, stopped: undefined };
    } catch (e) {
      if (gone.signal.aborted) throw e;
      throw await decline(wire, asError(e));
    }
    if (known) this.#forget(known);
    this.#parcels.set(key, parcel);
    this.#bound();
    await wire.send(encode(Kind.answer, true, ""));
    return { parcel, claim: 0 };
  }

  /** #bound drops what was agreed to longest ago, or too long. */
  #bound(): void {
    for (const p of this.#parcels.values()) {
      const old = Date.now() - p.agreed >= agreedFor;
      if (!p.session && (old || this.#parcels.size > maxParcels)) this.#forget(p);
    }
  }

  #stop(p: Parcel, why: Error): void {
    p.stopped = why;
    p.session?.cut(why);
    this.#discard(p);
  }

  #forget(p: Parcel): void {
    for (const [key, q] of this.#parcels) if (q === p) this.#parcels.delete(key);
    this.#discard(p);
  }

  #discard(p: Parcel): void {
    for (const part of p.parts.values()) if (!part.sum) void part.sink.discard().catch(() => {}); // it is given up anyway
    p.parts.clear();
  }

  /** #partOf gives what an earlier parcel of the same device has of a file: its sender has begun again. */
  #partOf(mine: Parcel, key: string): Part | undefined {
    for (const p of this.#parcels.values()) {
      const part = p.from === mine.from && p !== mine && !p.session ? p.parts.get(key) : undefined;
      if (!part || part.sum) continue;
      p.parts.delete(key);
      return part;
    }
    return undefined;
  }
}

/** Declined is thrown where the sender was told so. */
class Declined extends Error {
  constructor(readonly why: Error) {
    super(why.message);
  }
}

function cameBack(): LostError {
  return new LostError("the sender has come back on another channel");
}

async function decline(wire: Wire, why: Error): Promise<Declined> {
  await wire.send(encode(Kind.answer, false, cutText(why.message, maxReason)));
  return new Declined(why);
}

/** checked makes an offer safe to show; what it throws the sender is told. */
function checked(from: DeviceID, o: Offer): Offered {
  if (o.version !== version) throw new Error(`version ${o.version}, this receiver knows ${version}`);
  if (o.entries > maxEntries) throw new Error(`${o.entries} files and folders, at most ${maxEntries} are taken`);
  if (o.names.length === 0 || o.entries === 0) throw new Error("nothing is named");
  return { from, names: o.names.map(cleanName), entries: o.entries, bytes: o.bytes };
}

/** Incoming is an entry without an outcome. */
interface Incoming extends Arriving {
  entry: Entry;
  stage: "announced" | "comparing" | "wanted" | "started" | "dead";
  part: Part | undefined;
  offset: number; // from where it is wanted
}

/** Session is a parcel's receiving over one channel. It takes one frame after another. */
class Session {
  done: Promise<void> = Promise.resolve();
  readonly #open = new Map<number, Incoming>();
  readonly #waiting: Incoming[] = []; // announced
  #next = 0;
  #kept = 0;
  #bytes = 0;
  #current: Incoming | undefined; // its pieces come
  #left = 0;

  constructor(
    private readonly wire: Wire,
    private readonly parcel: Parcel,
    private readonly heard: Promise<Frame>,
    private readonly earlier: (key: string) => Part | undefined,
  ) {}

  cut(why: Error): void {
    this.wire.cut(why);
  }

  /** supersede ends the session as its sender has come back on another channel. */
  async supersede(): Promise<void> {
    this.cut(cameBack());
    await this.done.catch(() => {}); // as it was cut
  }

  async run(): Promise<void> {
    try {
      for (let f = await this.heard; f.kind !== Kind.end; f = await this.wire.next()) {
        await this.#handle(f);
        await this.#prepareAll();
      }
      if (this.#open.size > 0) throw new ProtocolError(`the end before ${this.#open.size} entries had theirs`);
      this.parcel.taking.ended(undefined, this.#kept);
    } catch (e) {
      this.parcel.taking.ended(asError(e), this.#kept);
      throw e;
    }
  }

  #handle(f: Frame): Promise<void> {
    switch (f.kind) {
      case Kind.entry:
        return this.#announced(decodeEntry(f.body));
      case Kind.digest:
        return this.#compared(decodeDigest(f.body));
      case Kind.start:
        return this.#started(decodeStart(f.body));
      case Kind.piece:
        return this.#piece(f.body);
      case Kind.broken:
        return this.#broken(decodeReason(f.body));
    }
    throw new ProtocolError(`a frame of kind ${f.kind} from a sender`);
  }

  async #announced(entry: Entry): Promise<void> {
    const { offer } = this.parcel;
    this.#bytes += entry.size;
    if (entry.index !== this.#next || entry.index >= offer.entries || this.#bytes > offer.bytes || entry.path.length === 0 || (entry.folder && entry.size > 0)) {
      throw new ProtocolError(`entry ${entry.index} of ${entry.size} bytes, beyond what was offered or out of turn`);
    }
    if (this.#open.size >= window) throw new ProtocolError(`more than ${window} entries under way`);
    this.#next++;
    const e: Incoming = { entry, path: "", size: entry.size, stage: "announced", part: undefined, offset: 0 };
    this.#open.set(entry.index, e);
    this.#waiting.push(e);
  }

  /** #prepareAll finds out what of the next entries is wanted. */
  async #prepareAll(): Promise<void> {
    while (this.#waiting.length > 0 && this.#open.size - this.#waiting.length < ahead) {
      const e = this.#waiting.shift()!;
      try {
        e.path = cleanPath(e.entry.path);
        this.#shown(e.entry.path);
      } catch (why) {
        e.path ||= JSON.stringify(e.entry.path).slice(0, 80);
        await this.#fail(e, asError(why), `its name: ${asError(why).message}`);
        continue;
      }
      await this.#prepare(e);
    }
  }

  /** #shown throws unless a path is that of a name in the offer, or below. An offer of 16 names may have more; each file is saved by hand under its own. */
  #shown(path: string[]): void {
    const { names, entries } = this.parcel.offer;
    const alone = entries === names.length; // nothing can be below them
    const known = names.includes(path[0]!) || names.length === maxNames;
    if (!known || (alone && path.length > 1)) throw new Error("it is not what was agreed to: send it again");
  }

  async #prepare(e: Incoming): Promise<void> {
    if (e.entry.folder) return this.#keep(e, false);
    const { parts, taking } = this.parcel;
    const key = `${e.size} ${e.path}`;
    for (const other of this.#open.values()) if (other !== e && other.part && other.part === parts.get(key)) return this.#fail(e, new Error("it comes twice"), "it comes twice");
    if (!parts.has(key) && this.#beyond(e.size)) return this.#fail(e, new Error("it is more than was agreed to"), "it is more than was agreed to: send it again");
    try {
      const there = parts.get(key) ?? this.earlier(key);
      e.part = there ?? { sink: await taking.place({ path: e.path, size: e.size }), hash: newHash(), at: 0 };
    } catch (why) {
      return this.#fail(e, asError(why), asError(why).message);
    }
    parts.set(key, e.part);
    if (e.part.sum) {
      e.stage = "comparing";
      return this.wire.send(encode(Kind.compare, e.entry.index));
    }
    e.stage = "wanted";
    e.offset = e.part.at;
    await this.wire.send(encodeWant({ index: e.entry.index, offset: e.offset, sum: e.offset > 0 ? sumOf(e.part.hash) : new Uint8Array(0) }));
  }

  /** #beyond reports whether one more file of a size is more, over all channels of the parcel, than the user was asked about. */
  #beyond(size: number): boolean {
    const { parts, offer } = this.parcel;
    for (const key of parts.keys()) size += parseInt(key, 10);
    return parts.size >= offer.entries || size > offer.bytes;
  }

  /** #at returns an open entry at a stage; undefined for one that has an outcome. */
  #at(index: number, stage: Incoming["stage"]): Incoming | undefined {
    const e = this.#open.get(index);
    if (!e && index < this.#next) return undefined;
    if (e?.stage !== stage) throw new ProtocolError(`a word on entry ${index} out of turn`);
    return e;
  }

  /** #compared takes the sum of what was kept already, before its sender could read so. */
  async #compared({ index, sum }: { index: number; sum: Bytes }): Promise<void> {
    const e = this.#at(index, "comparing");
    if (!e) return;
    if (equal(sum, e.part!.sum!)) return this.#keep(e, true);
    e.part = undefined; // what is here stays, and has filled its place
    await this.#fail(e, new Error("it was taken already"), "it was taken already: send it again");
  }

  async #started({ index, from }: { index: number; from: number }): Promise<void> {
    const e = this.#at(index, "wanted");
    if (this.#current || !e || (from !== 0 && from !== e.offset)) throw new ProtocolError(`entry ${index} starts at ${from}`);
    e.stage = "started";
    [this.#current, this.#left] = [e, e.size - from];
    if (from === e.part!.at) return;
    try { // its sender has other content: what is there is of no use
      await e.part!.sink.discard();
      this.#drop(e, false);
      e.part = { sink: await this.parcel.taking.place({ path: e.path, size: e.size }), hash: newHash(), at: 0 };
      this.parcel.parts.set(`${e.size} ${e.path}`, e.part);
    } catch (why) {
      await this.#fail(e, asError(why), "the file could not be stored");
    }
  }

  async #piece(body: Bytes): Promise<void> {
    const e = this.#current;
    const n = body.length - sumLen;
    if (!e || n > this.#left || n < Math.min(minPiece, this.#left)) throw new ProtocolError(`a piece of ${n} bytes out of turn`);
    this.#left -= n;
    if (this.#left === 0) this.#current = undefined;
    if (e.stage === "dead") return;
    const part = e.part!;
    const hash = part.hash.clone().update(body.subarray(0, n));
    const sum = sumOf(hash);
    if (!equal(sum, body.subarray(n))) return this.#fail(e, new ProtocolError("the content does not match its BLAKE3"), "the content does not match its BLAKE3");
    try {
      if (n > 0) await part.sink.write(body.subarray(0, n));
      part.hash = hash;
      part.at += n;
      this.parcel.taking.moved({ path: e.path, size: e.size }, part.at);
      if (part.at < e.size) return;
      await part.sink.keep();
    } catch (why) {
      return this.#fail(e, asError(why), "the file could not be stored");
    }
    part.sum = sum;
    await this.#keep(e, false);
  }

  async #broken({ index, reason }: { index: number; reason: string }): Promise<void> {
    if (this.#current && this.#current.entry.index !== index) throw new ProtocolError(`entry ${index} is broken while ${this.#current.entry.index} is sent`);
    const e = this.#current ?? this.#open.get(index);
    this.#current = undefined;
    if (!e && index < this.#next) return;
    if (!e || e.stage === "announced") throw new ProtocolError(`entry ${index} is broken out of turn`);
    if (e.stage === "dead") return;
    this.#open.delete(index);
    this.#drop(e, true);
    this.parcel.taking.failed({ path: e.path, size: e.size }, new Error(`the sender: ${reason}`));
  }

  /** #keep tells both sides that an entry is there. */
  async #keep(e: Incoming, same: boolean): Promise<void> {
    this.#open.delete(e.entry.index);
    this.#kept++;
    if (!e.entry.folder && !same) this.parcel.taking.kept({ path: e.path, size: e.size }, hex(e.part!.sum!), e.part!.sink);
    await this.wire.send(encode(Kind.kept, e.entry.index, e.path, same));
  }

  /** #fail tells both sides that an entry could not be received. */
  async #fail(e: Incoming, why: Error, told: string): Promise<void> {
    this.#open.delete(e.entry.index);
    e.stage = "dead";
    this.#drop(e, true);
    this.parcel.taking.failed({ path: e.path, size: e.size }, why);
    await this.wire.send(encodeReason(Kind.failed, e.entry.index, told));
  }

  /** #drop forgets what there is of an entry. */
  #drop(e: Incoming, discard: boolean): void {
    const key = `${e.size} ${e.path}`;
    if (e.part && this.parcel.parts.get(key) === e.part) this.parcel.parts.delete(key);
    if (e.part && discard && !e.part.sum) void e.part.sink.discard().catch(() => {}); // the first failure is the one to tell
    e.part = undefined;
  }
}
