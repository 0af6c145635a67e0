// A browser tab as a device: its line to a switchboard, its calls, its links.

import type { Bytes } from "./bytes";
import { Calls, CrossedError } from "./calls";
import type { Carrier } from "./carrier";
import type { Peer } from "./chain";
import type { Channel } from "./channel";
import { asError, ClosedError } from "./errors";
import type { Identity } from "./identity";
import type { DeviceID } from "./keys";
import { type Incoming, Link, openOn } from "./link";
import type { Reachable } from "./signal";
import { type LineState, Switchboard } from "./switchboard";

/** How long a call that has crossed one of the other device waits for that, in milliseconds. */
const crossedPatience = 15_000;

/** DeviceConfig says where and how a device is reached. */
export interface DeviceConfig {
  /** The switchboard's address, ws:// or wss://. */
  signal: string;
  /** STUN and TURN servers, or who is asked for them before each call, as their credentials end. */
  iceServers?: RTCIceServer[] | (() => Promise<RTCIceServer[]>);
  /** relayOnly: over TURN servers alone, so that no other device learns this one's addresses. */
  relayOnly?: boolean;
  reachable?: Reachable;
  /** trusted throws where a device is not wanted. */
  trusted?: (peer: Peer) => void;
}

/** Connection is a link and who is at its other end. */
export interface Connection {
  readonly peer: Peer;
  readonly link: Link;
  readonly caller: DeviceID;
}

/** DeviceEvents are told what happens. They must not throw. */
export interface DeviceEvents {
  line(s: LineState, why?: string): void;
  /** connected: a link has come up, called by either side. */
  connected(c: Connection): void;
  /** lost: a link has ended; left is how many others there are to the device. */
  lost(c: Connection, why: Error, left: number): void;
  /** beat: the round trip was measured, or the device has fallen silent. */
  beat(c: Connection, roundTrip: number, silent: boolean): void;
  /** request: a device asks for a channel. */
  request(c: Connection, r: Incoming): void;
}

/** Device is reachable from its making until it is closed. */
export class Device {
  readonly #line: Switchboard;
  readonly #calls: Calls;
  readonly #links = new Map<DeviceID, Connection[]>();
  readonly #dialing = new Map<DeviceID, Promise<Connection>>();
  readonly #arrivals = new Map<DeviceID, Set<(c: Connection) => void>>();

  constructor(
    readonly me: Identity,
    config: DeviceConfig,
    private readonly events: DeviceEvents,
  ) {
    this.#line = new Switchboard(config.signal, me, {
      state: (s, why) => this.events.line(s, why),
      message: (from, body: Bytes) => this.#calls.handle(from, body),
    });
    this.#calls = new Calls({
      me,
      signaller: this.#line,
      iceServers: async () => (typeof config.iceServers === "function" ? config.iceServers() : (config.iceServers ?? [])),
      relayOnly: config.relayOnly ?? false,
      reachable: config.reachable ?? {},
      ...(config.trusted ? { trusted: config.trusted } : {}),
      incoming: ({ carrier, peer }) => this.#adopt(carrier, peer, peer.device),
    });
  }

  /** connection returns the link that channels to a device use; undefined where there is none. */
  connection(peer: DeviceID): Connection | undefined {
    const all = this.#links.get(peer) ?? [];
    const smaller = peer < this.me.device ? peer : this.me.device;
    return all.find((c) => c.caller === smaller) ?? all[0];
  }

  /** connect returns a link to a device and makes one where there is none. */
  connect(peer: DeviceID): Promise<Connection> {
    const there = this.connection(peer);
    if (there) return Promise.resolve(there);
    let dialing = this.#dialing.get(peer);
    if (!dialing) {
      dialing = this.#dial(peer).finally(() => this.#dialing.delete(peer));
      this.#dialing.set(peer, dialing);
    }
    return dialing;
  }

  /** open opens a channel to a device, connecting first if need be, and again where the device gives the link up. */
  open(peer: DeviceID, name: string, signal?: AbortSignal): Promise<Channel> {
    return openOn(async () => (await this.connect(peer)).link, name, signal);
  }

  /** disconnect says goodbye to a device. */
  disconnect(peer: DeviceID): void {
    for (const c of this.#links.get(peer) ?? []) c.link.close();
  }

  /** doubt asks all devices for a sign of life, and the switchboard, as the network has changed or the machine has slept. */
  doubt(): void {
    this.#line.retry();
    for (const all of this.#links.values()) for (const c of all) c.link.doubt();
  }

  /** close ends everything. */
  close(): void {
    this.#line.close();
    this.#calls.close();
    for (const peer of [...this.#links.keys()]) this.disconnect(peer);
  }

  async #dial(peer: DeviceID): Promise<Connection> {
    const arrival = this.#arrival(peer);
    try {
      const { carrier, peer: found } = await this.#calls.dial(peer);
      return await this.#ready(this.#adopt(carrier, found, this.me.device));
    } catch (e) {
      if (!(e instanceof CrossedError)) throw e;
      return await this.#ready(await arrival.within(crossedPatience));
    } finally {
      arrival.stop();
    }
  }

  async #ready(c: Connection): Promise<Connection> {
    await c.link.ready;
    return c;
  }

  /** #arrival waits for a link that the device itself makes. */
  #arrival(peer: DeviceID): { within(ms: number): Promise<Connection>; stop(): void } {
    const waiting = this.#arrivals.get(peer) ?? new Set();
    this.#arrivals.set(peer, waiting);
    let came: (c: Connection) => void = () => {};
    const first = new Promise<Connection>((resolve) => (came = resolve));
    waiting.add(came);
    return {
      within: (ms) =>
        Promise.race([first, new Promise<never>((_, failed) => setTimeout(() => failed(new Error("the device called at the same time, and its call did not come through")), ms))]),
      stop: () => {
        waiting.delete(came);
        if (waiting.size === 0) this.#arrivals.delete(peer);
      },
    };
  }

  #adopt(carrier: Carrier, peer: Peer, caller: DeviceID): Connection {
    const link: Link = new Link(carrier, caller === this.me.device ? "client" : "server", {
      request: (r) => this.events.request(c, r),
      beat: (rtt, silent) => this.events.beat(c, rtt, silent),
    });
    const c: Connection = { peer, link, caller };
    this.#links.set(peer.device, [...(this.#links.get(peer.device) ?? []), c]);
    link.ready.then(
      () => {
        this.events.connected(c);
        for (const came of this.#arrivals.get(peer.device) ?? []) came(c);
      },
      () => {}, // lost tells
    );
    void link.closed.then((why) => {
      const left = (this.#links.get(peer.device) ?? []).filter((x) => x !== c);
      if (left.length > 0) this.#links.set(peer.device, left);
      else this.#links.delete(peer.device);
      this.events.lost(c, asError(why), left.length);
    });
    return c;
  }
}

/** closedHere tells whether a link's end was this side's wish. */
export function closedHere(why: Error): boolean {
  return why instanceof ClosedError;
}
