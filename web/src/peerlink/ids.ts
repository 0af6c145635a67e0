// The channel ids of one side (docs/protocol.md, "Ids and their reuse").

import { nonce } from "./bytes";
import { lastClientID, protocolID } from "./wire";

interface Waiter {
  done: (id: number) => void;
  failed: (e: Error) => void;
}

/**
 * Ids gives each id of a side once, in ascending order; after that those whose
 * channels are over and behind which a beacon has come back.
 */
export class Ids {
  readonly #first: number;
  readonly #last: number;
  #next: number;
  #retired: number[] = []; // over, no beacon sent
  #fenced: number[] = []; // over, a beacon is under way
  #fence: bigint | undefined;
  #free: number[] = [];
  #waiters: Waiter[] = [];

  constructor(side: "client" | "server", last?: number) {
    this.#first = side === "client" ? 1 : lastClientID + 1;
    this.#last = last ?? (side === "client" ? lastClientID : protocolID - 1);
    this.#next = this.#first;
  }

  /** peers tells whether the peer may open id. */
  peers(id: number): boolean {
    const own = this.#first === 1 ? id <= lastClientID : id > lastClientID;
    return id !== 0 && id !== protocolID && !own;
  }

  /** take returns a free id; if none is, it waits for the beacon that it asks to be sent. */
  async take(send: (nonce: bigint) => void): Promise<number> {
    if (this.#next <= this.#last) return this.#next++;
    const id = this.#free.shift();
    if (id !== undefined) return id;
    if (this.#fence === undefined) {
      if (this.#retired.length === 0) throw new Error("all channel ids of this side are in use");
      this.#fenced = this.#retired.splice(0);
      this.#fence = nonce();
      send(this.#fence);
    }
    return new Promise((done, failed) => this.#waiters.push({ done, failed }));
  }

  /** give takes the id of a channel that is over. */
  give(id: number): void {
    if (!this.peers(id)) this.#retired.push(id);
  }

  /** answered takes a beacon's answer; false if it is not that of a fence. */
  answered(n: bigint): boolean {
    if (n !== this.#fence) return false;
    this.#fence = undefined;
    this.#free.push(...this.#fenced.splice(0));
    const waiters = this.#waiters.splice(0);
    for (const w of waiters) {
      const id = this.#free.shift();
      if (id === undefined) w.failed(new Error("all channel ids of this side are in use"));
      else w.done(id);
    }
    return true;
  }

  /** fail ends all who wait. */
  fail(why: Error): void {
    for (const w of this.#waiters.splice(0)) w.failed(why);
  }
}
