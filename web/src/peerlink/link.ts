// A link: many channels over one carrier (docs/protocol.md, "The wire inside a
// link"). It speaks version 2; a peer of version 1 is refused.

import type { Bytes } from "./bytes";
import type { Carrier } from "./carrier";
import { Channel, firstWindow, type Line } from "./channel";
import { asError, ClosedError, Code, DeclinedError, givenUp, GoingAwayError, LostError, ProtocolError } from "./errors";
import { Ids } from "./ids";
import { Liveness } from "./liveness";
import { Reader } from "./packed";
import {
  badName, controlID, datagramRoom, decodeDatagram, decodeMessage, decodeRequest, earlyCredit, encodeDatagram, encodeMessage, encodeRequest,
  featureDatagrams, frame,
  maxSend, maxWindow, type Message, protocolID, type Request, Splitter, version,
} from "./wire";

const maxChannels = 1024;
const maxPending = 256;
/** Messages about channels that do not exist any more (docs/protocol.md, "Late messages"). */
const lateFrames = 100;
const latePerChannel = 9;
/** How long the peer may take to close after this side has gone away, in milliseconds. */
const farewell = 1000;
const helloTimeout = 5000;
/** How many links one request may be asked on. */
const maxTries = 8;

/** Incoming is a peer's wish for a channel, to be decided once. */
export interface Incoming {
  readonly name: string;
  /** accept opens the channel; it throws where the request was taken back. */
  accept(): Channel;
  /** decline refuses, with a reason of at most 255 bytes that the peer is shown, and a code for its program. */
  decline(reason: string, code?: number): void;
}

/** Events of a link. All are optional and must not throw. */
export interface Events {
  /** request: the peer asks for a channel. Without it all are declined. */
  request?(r: Incoming): void;
  /** beat: a beacon has come back, or the peer has fallen silent. */
  beat?(roundTrip: number, silent: boolean): void;
}

interface Entry {
  channel: Channel;
  undecided: boolean; // the peer's, not answered yet
  asking: { done: (c: Channel) => void; failed: (e: Error) => void } | undefined; // ours, not answered yet
}

/** Link is one live connection to one device. */
export class Link implements Line {
  /** Settles when the link has ended, with why. */
  readonly closed: Promise<Error>;
  /** Settles when the peer's hello has come; rejects if the link ends before. */
  readonly ready: Promise<void>;
  #closed!: (why: Error) => void;
  #ready!: { done: () => void; failed: (e: Error) => void };
  #why: Error | undefined;
  #helloSeen = false;
  #features = 0n; // of both sides
  #leaving = false; // going away was sent
  #peerLeaves = false; // the peer drains

  readonly #table = new Map<number, Entry>();
  readonly #ids: Ids;
  readonly #turns: Channel[] = [];
  readonly #splitter = new Splitter((id, b) => this.#frame(id, b));
  readonly #life: Liveness;
  #pending = 0;
  #strays = 0;
  #ended = 0;
  #timers: ReturnType<typeof setTimeout>[] = [];

  constructor(
    private readonly carrier: Carrier,
    side: "client" | "server",
    private readonly events: Events = {},
  ) {
    this.closed = new Promise((resolve) => (this.#closed = resolve));
    this.ready = new Promise((done, failed) => (this.#ready = { done, failed }));
    this.ready.catch(() => {}); // who does not ask need not hear
    this.#ids = new Ids(side);
    this.#life = new Liveness({
      beacon: (nonce) => this.#say({ kind: "beacon", nonce, answer: false }),
      waiting: () => carrier.waiting,
      beat: (rtt, silent) => this.events.beat?.(rtt, silent),
      dead: () => this.#die(new LostError("the other device does not answer any more")),
    });
    this.#say({ kind: "hello", version, features: this.#own() });
    this.#timers.push(setTimeout(() => this.#helloSeen || this.#violated(new ProtocolError("no hello has come")), helloTimeout));
    // Not at once: what waits in the carrier already would come to somebody
    // who does not have this link yet.
    queueMicrotask(() => {
      carrier.start({
        data: (b) => this.#take(b),
        ended: (why) => this.#die(why ?? new LostError("the other device ended the connection without a word")),
        drained: () => this.#pump(),
      });
      carrier.datagrams?.take((b) => this.#datagram(b));
    });
  }

  /** The last measured round trip in milliseconds, 0 while unknown. */
  get roundTrip(): number {
    return this.#life.roundTrip;
  }

  /** The way of the bytes, for people. */
  get path(): string {
    return this.carrier.path;
  }

  /** The number of channels. */
  get channels(): number {
    return this.#table.size;
  }

  /**
   * open asks for a channel and waits for the answer. It rejects with a
   * DeclinedError, the signal's reason, or why the link has ended.
   */
  async open(name: string, signal?: AbortSignal): Promise<Channel> {
    const bad = badName(name);
    if (bad !== "") throw new TypeError(bad);
    signal?.throwIfAborted();
    if (this.#why) throw this.#why;
    if (this.#leaving || this.#peerLeaves) throw new ClosedError("the connection is being closed");
    if (this.#table.size >= maxChannels) throw new Error(`${maxChannels} channels are open already`);
    const id = await this.#ids.take((nonce) => this.#say({ kind: "beacon", nonce, answer: false }));
    if (this.#why) throw this.#why;
    return new Promise<Channel>((done, failed) => {
      const channel = new Channel(id, name, this, earlyCredit, firstWindow);
      this.#table.set(id, { channel, undecided: false, asking: { done, failed } });
      this.carrier.send(encodeRequest({ name, channel: id, answer: false, accepted: false, window: channel.window, reason: "" }));
      signal?.addEventListener("abort", () => this.#withdraw(id, asError(signal.reason)), { once: true });
    });
  }

  /** close says goodbye and ends the link; the peer has a second to close first. */
  close(code: number = Code.closed, reason = ""): void {
    if (this.#why || this.#leaving) return;
    this.#say({ kind: "away", code, reason, draining: false });
    this.#leaving = true; // nothing follows it
    this.#failAll(new ClosedError());
    this.#timers.push(setTimeout(() => this.#die(new ClosedError()), farewell));
  }

  /** doubt asks the peer for a sign of life at once. */
  doubt(): void {
    this.#life.ask();
  }

  // What channels call.

  may(c: Channel): void {
    if (!this.#turns.includes(c)) this.#turns.push(c);
    this.#pump();
  }

  data(id: number, b: Uint8Array): void {
    this.carrier.send(frame(id, b));
  }

  end(id: number): void {
    this.carrier.send(frame(id, new Uint8Array(0)));
  }

  reset(id: number, code: number): void {
    this.#say({ kind: "reset", channel: id, code });
  }

  grant(id: number, bytes: number): void {
    this.#say({ kind: "credit", grants: [[id, bytes]] });
  }

  get maxDatagram(): number {
    return this.#features & featureDatagrams ? datagramRoom(this.carrier.datagrams?.most ?? 0) : 0;
  }

  datagram(id: number, b: Uint8Array): boolean {
    return !this.#why && !this.#leaving && (this.carrier.datagrams?.send(encodeDatagram(id, b)) ?? false);
  }

  settled(c: Channel): void {
    const e = this.#table.get(c.id);
    if (!e) return;
    if (e.undecided) this.#pending--;
    e.undecided = false;
    this.#table.delete(c.id);
    this.#ended++;
    this.#ids.give(c.id);
    const at = this.#turns.indexOf(c);
    if (at >= 0) this.#turns.splice(at, 1);
  }

  /** #pump lets channels take turns, a frame each, while the carrier has room. */
  #pump(): void {
    while (this.#turns.length > 0 && !this.carrier.full && !this.#why) {
      const c = this.#turns.shift()!;
      if (c.turn(maxSend) && !this.#turns.includes(c)) this.#turns.push(c);
    }
  }

  #say(m: Exclude<Message, { kind: "unknown" }>): void {
    if (!this.#why && !this.#leaving) this.carrier.send(encodeMessage(m));
  }

  /** #own are this side's features. */
  #own(): bigint {
    return this.carrier.datagrams ? featureDatagrams : 0n;
  }

  // What the peer says.

  /** #datagram hands one to its channel; what belongs to none has overtaken its request, or comes late. */
  #datagram(b: Bytes): void {
    if (this.#why || this.#leaving || !this.#helloSeen) return;
    this.#life.heard();
    const d = decodeDatagram(b);
    if (d) this.#table.get(d.channel)?.channel.deliverDatagram(d.payload);
  }

  #take(b: Bytes): void {
    if (this.#why || this.#leaving) return;
    this.#life.heard();
    try {
      this.#splitter.push(b);
    } catch (e) {
      this.#violated(asError(e));
    }
  }

  #frame(id: number, body: Bytes): void {
    if (this.#why) return;
    if (!this.#helloSeen && id !== protocolID) throw new ProtocolError("the device speaks version 1, and here 2 is the lowest");
    if (id !== controlID && id !== protocolID) {
      this.#data(id, body);
      return;
    }
    const r = new Reader(body);
    while (r.left > 0 && !this.#why) {
      if (id === controlID) this.#request(decodeRequest(r));
      else this.#message(decodeMessage(r));
    }
  }

  #data(id: number, body: Bytes): void {
    const c = this.#find(id)?.channel;
    if (!c) return;
    if (body.length === 0) c.ended();
    else if (!c.deliver(body)) c.reset(Code.flowControl);
  }

  #find(id: number): Entry | undefined {
    const e = this.#table.get(id);
    if (!e) this.#late(`message about channel ${id}, which does not exist`);
    return e;
  }

  #late(what: string): void {
    if (++this.#strays > lateFrames + latePerChannel * this.#ended) {
      throw new ProtocolError(`${this.#strays} late messages, the last: ${what}`);
    }
  }

  #message(m: Message): void {
    if (!this.#helloSeen) {
      if (m.kind !== "hello" || m.version < version) throw new ProtocolError("the device speaks version 1, and here 2 is the lowest");
      this.#helloSeen = true;
      this.#features = this.#own() & m.features;
      this.#life.start();
      this.#ready.done();
      return;
    }
    switch (m.kind) {
      case "beacon":
        if (!m.answer) this.#say({ kind: "beacon", nonce: m.nonce, answer: true });
        else if (!this.#ids.answered(m.nonce) && !this.#life.answered(m.nonce)) this.#late("answer to a beacon that was not sent");
        return;
      case "credit":
        for (const [id, bytes] of m.grants) this.#find(id)?.channel.granted(bytes);
        return;
      case "reset":
        this.#wasReset(m.channel, m.code);
        return;
      case "away":
        if (m.draining) this.#peerLeaves = true;
        else this.#die(new GoingAwayError(m.code, m.reason));
    }
  }

  #wasReset(id: number, code: number): void {
    const e = this.#find(id);
    if (!e) return;
    const asking = e.asking;
    e.asking = undefined;
    e.channel.wasReset(code, e.undecided);
    asking?.failed(new DeclinedError(""));
  }

  #request(q: Request): void {
    if (q.answer) {
      this.#answer(q);
      return;
    }
    if (!this.#ids.peers(q.channel)) throw new ProtocolError(`request for channel ${q.channel}, which is not the peer's to open`);
    if (this.#table.has(q.channel)) throw new ProtocolError(`request for channel ${q.channel}, which exists`);
    if (q.window < earlyCredit || q.window > maxWindow) throw new ProtocolError(`request with a window of ${q.window}`);
    const channel = new Channel(q.channel, q.name, this, q.window, firstWindow);
    const entry: Entry = { channel, undecided: true, asking: undefined };
    this.#table.set(q.channel, entry);
    this.#pending++;
    let no = badName(q.name);
    let code: number = Code.resources;
    if (no !== "") [q.name, code] = ["(bad name)", Code.protocol];
    else if (this.#table.size > maxChannels) no = `no more than ${maxChannels} channels`;
    else if (this.#pending > maxPending) no = `${maxPending} requests wait already`;
    else if (!this.events.request) [no, code] = ["nobody is there for it", Code.noListener];
    if (no !== "") this.#decline(entry, q.name, no, code);
    else this.events.request?.(this.#incoming(entry, q.name));
  }

  #incoming(e: Entry, name: string): Incoming {
    return {
      name,
      accept: () => {
        if (!e.undecided) throw new ClosedError("the request was taken back, or is decided already");
        this.#decide(e);
        this.carrier.send(encodeRequest({ name, channel: e.channel.id, answer: true, accepted: true, window: e.channel.window, reason: "" }));
        e.channel.decided();
        return e.channel;
      },
      decline: (reason, code) => this.#decline(e, name, reason, code),
    };
  }

  #decide(e: Entry): void {
    e.undecided = false;
    this.#pending--;
  }

  /** #decline says no, which ends this direction; early bytes are dropped until the peer ends its own. */
  #decline(e: Entry, name: string, reason: string, code = 0): void {
    if (!e.undecided) return;
    this.#decide(e);
    this.carrier.send(encodeRequest({ name, channel: e.channel.id, answer: true, accepted: false, window: 0, reason, code }));
    e.channel.refuse();
  }

  #answer(q: Request): void {
    const e = this.#find(q.channel);
    if (!e) return;
    const asking = e.asking;
    if (!asking) {
      this.#late(`answer for channel ${q.channel}, which asked for none`);
      if (!q.accepted) e.channel.wasDeclined(new DeclinedError(q.reason, q.code)); // it crossed a withdrawal
      return;
    }
    e.asking = undefined;
    if (!q.accepted) {
      const no = new DeclinedError(q.reason, q.code);
      e.channel.wasDeclined(no);
      asking.failed(no);
      return;
    }
    if (q.window < earlyCredit || q.window > maxWindow) throw new ProtocolError(`answer with a window of ${q.window}`);
    e.channel.accepted(q.window);
    asking.done(e.channel);
  }

  /** #withdraw takes a request back. */
  #withdraw(id: number, why: Error): void {
    const e = this.#table.get(id);
    const asking = e?.asking;
    if (!e || !asking) return;
    e.asking = undefined;
    e.channel.reset(Code.cancelled);
    asking.failed(why);
  }

  // The end.

  #violated(why: Error): void {
    if (this.#why) return;
    this.#say({ kind: "away", code: Code.protocol, reason: why.message, draining: false });
    this.#die(why);
  }

  #die(why: Error): void {
    if (this.#why) return;
    const cause = this.#leaving && !(why instanceof ProtocolError) ? new ClosedError() : why;
    this.#why = cause;
    for (const t of this.#timers) clearTimeout(t);
    this.#life.stop();
    this.#failAll(cause);
    this.carrier.close();
    this.#ready.failed(cause);
    this.#closed(cause);
  }

  #failAll(cause: Error): void {
    this.#ids.fail(cause);
    for (const e of [...this.#table.values()]) {
      const asking = e.asking;
      e.asking = undefined;
      e.channel.fail(cause);
      asking?.failed(cause);
    }
  }
}

/**
 * openOn opens a channel on the link that connect gives. Where the other device
 * gives that link up before it has decided, connect is asked for another one, at
 * most 8 times in all. It rejects as connect and Link.open do.
 */
export async function openOn(connect: () => Promise<Link>, name: string, signal?: AbortSignal): Promise<Channel> {
  for (let tries = 1; ; tries++) {
    const link = await connect();
    try {
      return await link.open(name, signal);
    } catch (e) {
      if (tries === maxTries || !givenUp(e) || !(await ends(link))) throw e;
    }
  }
}

/** ends waits for the end of a link, which the decline that tells of it may overtake; false if it does not come. */
async function ends(link: Link): Promise<boolean> {
  let late: ReturnType<typeof setTimeout> | undefined;
  const never = new Promise<boolean>((resolve) => (late = setTimeout(() => resolve(false), 2 * farewell)));
  const over = await Promise.race([link.closed.then(() => true), never]);
  clearTimeout(late);
  return over;
}
