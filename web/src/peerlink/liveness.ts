// Beacons: the round trip, and whether the peer is still there.

import { nonce } from "./bytes";

// All in milliseconds. A peer that has vanished must be known within three
// seconds; a break of two is usual where a phone changes networks.
const tick = 200;
const every = 500;
const silentAfter = 1100;
const deadAfter = 1900;
const secondLook = 60;
/** In a tab that is not seen timers run late, so it is slower. */
const hiddenEvery = 5000;
const hiddenDeadAfter = 10_000;
/** As many beacons as may be under way. */
const mostAsked = 64;
const firstBeacons = 4;
/** The round trip is the least of so many: more is this page's own delay. */
const samples = 8;

/** Deps is what it asks of its link. */
export interface Deps {
  beacon(nonce: bigint): void;
  /** Bytes that the carrier has not sent: where they become fewer, somebody takes them. */
  waiting(): number;
  beat(roundTrip: number, silent: boolean): void;
  dead(): void;
}

/** Liveness runs from start to stop. */
export class Liveness {
  roundTrip = 0;
  #asked = new Map<bigint, number>();
  #trips: number[] = [];
  #first = 0; // of the beacons that begin a link, one after the other
  #lastHeard = 0;
  #lastAsked = 0;
  #lastWaiting = 0;
  #silent = false;
  #doubt: ReturnType<typeof setTimeout> | undefined; // runs when the peer seems dead
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(
    private readonly deps: Deps,
    private readonly now: () => number = () => performance.now(),
    private readonly hidden: () => boolean = () => typeof document !== "undefined" && document.hidden,
  ) {}

  start(): void {
    this.#lastHeard = this.now();
    this.#first = firstBeacons;
    this.ask();
    this.#timer = setInterval(() => this.#tick(), tick);
  }

  stop(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#doubt);
  }

  /** heard notes that bytes of the peer have come. */
  heard(): void {
    this.#lastHeard = this.now();
    if (this.#silent) {
      this.#silent = false;
      this.deps.beat(this.roundTrip, false);
    }
  }

  /** ask sends a beacon. */
  ask(): void {
    if (this.#asked.size >= mostAsked) return;
    const n = nonce();
    this.#lastAsked = this.now();
    this.#asked.set(n, this.#lastAsked);
    this.deps.beacon(n);
  }

  /** answered takes a beacon's answer; false where it was never asked. */
  answered(n: bigint): boolean {
    const at = this.#asked.get(n);
    if (at === undefined) return false;
    this.#asked.delete(n);
    this.#trips.push(Math.max(this.now() - at, 0.01));
    if (this.#trips.length > samples) this.#trips.shift();
    this.roundTrip = Math.min(...this.#trips);
    this.deps.beat(this.roundTrip, false);
    if (--this.#first > 0) this.ask();
    return true;
  }

  #tick(): void {
    const now = this.now();
    const waiting = this.deps.waiting();
    if (waiting < this.#lastWaiting) this.heard();
    this.#lastWaiting = waiting;
    const hidden = this.hidden();
    if (now - this.#lastAsked >= (hidden ? hiddenEvery : every)) this.ask();
    const quiet = now - this.#lastHeard;
    const oldest = this.#asked.values().next().value;
    // The oldest question must have waited, too: after a sleep of the machine
    // nothing has been asked yet.
    if (oldest === undefined || now - oldest < silentAfter / 2) return;
    if (quiet > silentAfter && !this.#silent) {
      this.#silent = true;
      this.deps.beat(this.roundTrip, true);
    }
    if (quiet <= (hidden ? hiddenDeadAfter : deadAfter) || this.#doubt !== undefined) return;
    // Once more: what has arrived may only wait behind this very timer.
    this.#doubt = setTimeout(() => {
      this.#doubt = undefined;
      if (this.#lastHeard + quiet <= now) this.deps.dead();
    }, secondLook);
  }
}
