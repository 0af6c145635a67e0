// The calls of this device: those that it makes, and those that come.

import { type Bytes } from "./bytes";
import { Call, type CallConfig, newCallID, type Proven, withdrawal } from "./call";
import type { Peer } from "./chain";
import { asError, ClosedError, Code, DeclinedError, LostError } from "./errors";
import type { DeviceID } from "./keys";
import { type Decoded, decodeSignal, encodeSignal, Kind, type Reachable } from "./signal";
import type { Signaller } from "./switchboard";

// All in milliseconds.
const callTimeout = 30_000;
const repeatAfter = 1500;
const maxIncoming = 32;
const maxPerPeer = 4;
const seenKept = 4096;

/** CrossedError: the other device calls as well, and its call goes first. */
export class CrossedError extends Error {
  override name = "CrossedError";
}

/** CallsConfig is what Calls are made of. */
export interface CallsConfig extends CallConfig {
  signaller: Signaller;
  reachable: Reachable;
  /** incoming is given each stream that another device has made. */
  incoming(p: Proven): void;
}

interface Outgoing {
  call: Call;
  answered: boolean;
  answer: (m: Decoded) => void;
  crossed: () => void;
}

interface Visit {
  call: Call | undefined; // undefined until it is made
  from: DeviceID;
  again: () => void;
}

/** Calls makes streams to devices and takes theirs. */
export class Calls {
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #incoming = new Map<string, Visit>();
  readonly #seen = new Set<string>();
  #closed = false;

  constructor(private readonly config: CallsConfig) {}

  /**
   * dial makes a stream to a device. It rejects with a DeclinedError, a
   * CrossedError, the signal's reason, or with how far it came.
   */
  async dial(peer: DeviceID, signal?: AbortSignal): Promise<Proven> {
    if (peer === this.config.me.device) throw new Error("this device cannot call itself");
    signal?.throwIfAborted();
    const call = await Call.make(this.config, "caller", newCallID(), peer);
    let stage = "the offer could not be made";
    const over = AbortSignal.any([AbortSignal.timeout(callTimeout), ...(signal ? [signal] : [])]);
    const stopped = new Promise<never>((_, failed) =>
      over.addEventListener("abort", () => failed(signal?.aborted ? asError(signal.reason) : new Error(`no path to the device in 30 seconds: ${stage}`)), { once: true }),
    );
    try {
      const m = await Promise.race([this.#offer(call, (s) => (stage = s)), stopped]);
      if (m.kind === Kind.refuse) throw new DeclinedError(m.reason, m.code);
      stage = "the device answered, but none of its addresses can be reached from here";
      const proven = Promise.race([this.#connect(call, m), stopped]);
      return await proven;
    } catch (e) {
      const why = asError(e);
      call.hangUp();
      if (!(why instanceof DeclinedError) && !this.#closed) this.config.signaller.send(peer, withdrawal(call)).catch(() => {}); // it only saves the other a wait
      throw why;
    } finally {
      this.#outgoing.delete(call.id);
    }
  }

  async #connect(call: Call, m: Decoded): Promise<Proven> {
    await call.describe("answer", m);
    return call.secure();
  }

  /** #offer says the offer, again and again, until there is an answer. */
  async #offer(call: Call, at: (stage: string) => void): Promise<Decoded> {
    let answer!: (m: Decoded) => void;
    let failed!: (e: Error) => void;
    const answered = new Promise<Decoded>((d, f) => ([answer, failed] = [d, f]));
    answered.catch(() => {}); // who waits below hears of it
    this.#outgoing.set(call.id, {
      call,
      answered: false,
      answer,
      crossed: () => failed(new CrossedError("the device calls at the same time")),
    });
    const sdp = await call.offer();
    const send = () => this.config.signaller.send(call.peer, call.signal(Kind.offer, { sdp, candidates: call.candidates }));
    at("the offer could not be sent");
    await send();
    at("the device does not answer");
    this.#trickle(call);
    let pause = repeatAfter;
    let timer = setTimeout(function again() {
      void send().catch(() => {}); // the first one has arrived; this is only for its loss
      pause *= 2;
      timer = setTimeout(again, pause);
    }, pause);
    try {
      return await Promise.race([answered, call.lost.then((why) => Promise.reject(new LostError(why)))]);
    } finally {
      clearTimeout(timer);
    }
  }

  #trickle(call: Call): void {
    call.trickle((c) => {
      this.config.signaller.send(call.peer, call.signal(Kind.candidates, { candidates: [c] })).catch(() => {}); // others may do
    });
  }

  /** handle takes what a signaller brought. What is malformed or fits no call is ignored. */
  handle(from: Peer, body: Bytes): void {
    if (this.#closed) return;
    let m: Decoded;
    try {
      m = decodeSignal(body, this.config.reachable);
    } catch {
      return;
    }
    if (m.kind === Kind.offer) this.#wasOffered(from, m);
    else if (m.kind === Kind.answer || m.kind === Kind.refuse) this.#wasAnswered(from, m);
    else if (m.kind === Kind.candidates) this.#find(m.call, from)?.add(m.candidates);
  }

  #find(id: string, from: Peer): Call | undefined {
    const call = this.#outgoing.get(id)?.call ?? this.#incoming.get(id)?.call;
    return call?.peer === from.device ? call : undefined;
  }

  /** #wasAnswered: the first answer of the device that was called counts; a refusal may be a caller's own. */
  #wasAnswered(from: Peer, m: Decoded): void {
    const visit = this.#incoming.get(m.call);
    if (visit && visit.from === from.device && m.kind === Kind.refuse) {
      visit.call?.hangUp();
      return;
    }
    const o = this.#outgoing.get(m.call);
    if (!o || o.call.peer !== from.device || o.answered) return;
    o.answered = true;
    o.answer(m);
  }

  #wasOffered(from: Peer, m: Decoded): void {
    const visit = this.#incoming.get(m.call);
    if (visit) {
      if (visit.from === from.device) visit.again();
      return;
    }
    const me = this.config.me.device;
    const crossed = [...this.#outgoing.values()].filter((o) => o.call.peer === from.device && !o.answered);
    if (from.device === me || (crossed.length > 0 && me < from.device)) return;
    if (this.#seen.has(m.call)) return;
    const no = this.#refusal(from);
    if (no) {
      this.config.signaller.send(from.device, encodeSignal({ kind: Kind.refuse, call: m.call, ...no })).catch(() => {}); // its call runs into its time-out
      return;
    }
    this.#seen.add(m.call);
    if (this.#seen.size > seenKept) this.#seen.delete(this.#seen.values().next().value!);
    for (const o of crossed) {
      o.answered = true;
      o.crossed();
    }
    void this.#serve(from, m);
  }

  #refusal(from: Peer): { reason: string; code: number } | undefined {
    try {
      this.config.trusted?.(from);
    } catch {
      return { reason: "not trusted", code: Code.refused };
    }
    const theirs = [...this.#incoming.values()].filter((v) => v.from === from.device).length;
    if (this.#incoming.size >= maxIncoming || theirs >= maxPerPeer) return { reason: "busy: too many calls", code: Code.resources };
    return undefined;
  }

  async #serve(from: Peer, m: Decoded): Promise<void> {
    const visit: Visit = { call: undefined, from: from.device, again: () => {} };
    this.#incoming.set(m.call, visit);
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      const call = (visit.call = await Call.make(this.config, "callee", m.call, from.device));
      timer = setTimeout(() => call.hangUp(), callTimeout);
      const sdp = await call.answer(m);
      const reply = () => this.config.signaller.send(from.device, call.signal(Kind.answer, { sdp, candidates: call.candidates }));
      visit.again = () => void reply().catch(() => {}); // it will ask once more
      await reply();
      this.#trickle(call);
      const proven = await call.secure();
      if (this.#closed) throw new ClosedError();
      this.config.incoming(proven);
    } catch {
      visit.call?.hangUp(); // the caller has the reason, or has gone
    } finally {
      clearTimeout(timer);
      this.#incoming.delete(m.call);
    }
  }

  /** close ends all calls; streams that were made live on. */
  close(): void {
    this.#closed = true;
    for (const o of this.#outgoing.values()) o.call.hangUp();
    for (const v of this.#incoming.values()) v.call?.hangUp();
  }
}
