// This device's line to a switchboard. It comes back by itself when it breaks.

import { type BoardFrame, decodeBoard, encodeBoard, maxBoardFrame, Op, subprotocol } from "./board";
import { type Bytes, concat, random, utf8 } from "./bytes";
import type { Peer } from "./chain";
import { asError, ClosedError, ProtocolError } from "./errors";
import type { Identity } from "./identity";
import { type DeviceID } from "./keys";
import { decodeCard, encodeCard, newSealingKey, openLetter, sealLetter } from "./seal";

const joinTimeout = 10_000;
const answerTimeout = 15_000;
const firstPause = 300;
const maxPause = 15_000;
/** A line is made anew after this long, so that its card stays valid. */
const lineLife = 12 * 3600_000;
/** Letters that are remembered, to take each once. */
const seenKept = 4096;
const waitingMost = 256;
/** The status with which a server ends a line whose device has a newer one. */
const statusReplaced = 4001;

/** LineState is what a line is doing. */
export type LineState = "connecting" | "connected" | "replaced" | "closed";

/** LineEvents are told about a line; they must not throw. */
export interface LineEvents {
  state(s: LineState, why?: string): void;
  /** message: a proven device has sent something. */
  message(from: Peer, body: Bytes): void;
}

/** Signaller carries small messages between devices, sealed and signed. */
export interface Signaller {
  send(to: DeviceID, body: Bytes): Promise<void>;
}

interface Waiting {
  done: (f: BoardFrame) => void;
  failed: (e: Error) => void;
}

/** Switchboard is a line. Make one, and close it when done. */
export class Switchboard implements Signaller {
  #ws: WebSocket | undefined;
  #up = false;
  #closed = false;
  #pause = firstPause;
  #joinedAt = Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #number = 0;
  readonly #waiting = new Map<number, Waiting>();
  readonly #seen = new Set<string>();
  #upWaiters: Waiting[] = [];
  #letters: Promise<void> = Promise.resolve(); // opened one after another, in order
  #unopened = 0;

  constructor(
    private readonly url: string,
    private readonly me: Identity,
    private readonly events: LineEvents,
  ) {
    this.#connect();
  }

  /** send seals body for a device and hands it to the server. It rejects where the device is not connected. */
  async send(to: DeviceID, body: Bytes): Promise<void> {
    for (let tries = 1; ; tries++) {
      const asked = await this.#ask({ op: Op.ask, device: to });
      if (asked.op !== Op.card) throw new Error(answerText(asked.op));
      const card = await decodeCard(asked.body);
      if (card.peer.device !== to) throw new ProtocolError("the switchboard gave another device's card");
      const sealed = await sealLetter(this.me, card, random(16), body);
      const sent = await this.#ask({ op: Op.send, device: to, body: sealed, extra: card.sum });
      if (sent.op === Op.taken) return;
      if (sent.op !== Op.stale || tries === 3) throw new Error(answerText(sent.op));
    }
  }

  /** retry tries at once where the line is broken, as the network may be back. */
  retry(): void {
    if (this.#closed || this.#ws?.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.#timer);
    this.#pause = firstPause;
    this.#connect();
  }

  /** close ends the line. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#ws?.close(1000);
    this.#down(new ClosedError("the line to the switchboard is closed"));
    for (const w of this.#upWaiters.splice(0)) w.failed(new ClosedError("the line to the switchboard is closed"));
    this.events.state("closed");
  }

  #connect(): void {
    this.events.state("connecting");
    let ws: WebSocket;
    try {
      ws = new WebSocket(this.url, subprotocol);
    } catch (e) {
      this.#closed = true;
      this.events.state("closed", `${this.url}: ${asError(e).message}`);
      return;
    }
    this.#ws = ws;
    ws.binaryType = "arraybuffer";
    const late = setTimeout(() => ws.close(), joinTimeout);
    const key = newSealingKey();
    let joining = false;
    ws.onmessage = (e) => {
      try {
        if (!(e.data instanceof ArrayBuffer) || e.data.byteLength > maxBoardFrame) throw new ProtocolError("not a message of a switchboard");
        const f = decodeBoard(new Uint8Array(e.data));
        if (f.op === Op.challenge && !joining) {
          joining = true;
          void this.#join(ws, key, f.body).catch(() => ws.close());
        } else if (f.op === Op.joined && joining && !this.#up) {
          clearTimeout(late);
          this.#joined(ws);
        } else if (this.#up) this.#take(f, key);
        else throw new ProtocolError(`message ${f.op} before this device has joined`);
      } catch {
        ws.close();
      }
    };
    ws.onclose = (e) => {
      clearTimeout(late);
      this.#lost(ws, e);
    };
  }

  async #join(ws: WebSocket, key: Promise<CryptoKeyPair>, nonce: Bytes): Promise<void> {
    if (nonce.length !== 32) throw new ProtocolError("a challenge of another length");
    const card = await encodeCard(this.me, (await key).publicKey);
    const { sum } = await decodeCard(card);
    const extra = await this.me.sign("switchboard-join", concat(nonce, sum, utf8(new URL(this.url).host)));
    ws.send(encodeBoard({ op: Op.join, body: card, extra }));
  }

  #joined(ws: WebSocket): void {
    this.#up = true;
    this.#joinedAt = performance.now();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => ws.close(), lineLife);
    this.events.state("connected");
    for (const w of this.#upWaiters.splice(0)) w.done({} as BoardFrame);
  }

  #take(f: BoardFrame, key: Promise<CryptoKeyPair>): void {
    if (f.op !== Op.letter) {
      const w = this.#waiting.get(f.number);
      this.#waiting.delete(f.number);
      w?.done(f);
      return;
    }
    if (this.#unopened >= 64) return; // a flood: the sender says it again
    this.#unopened++;
    this.#letters = this.#letters.then(async () => {
      try {
        const l = await openLetter(this.me.device, await key, f.body);
        if (this.#first(l.id)) this.events.message(l.from, l.body);
      } catch {
        // made up, damaged or late: dropped without an answer
      } finally {
        this.#unopened--;
      }
    });
  }

  /** #first is false where a letter has come before. */
  #first(id: string): boolean {
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > seenKept) this.#seen.delete(this.#seen.values().next().value!);
    return true;
  }

  #lost(ws: WebSocket, e: CloseEvent): void {
    if (this.#ws !== ws || this.#closed) return;
    this.#down(new Error("the line to the switchboard broke"));
    if (e.code === statusReplaced) {
      this.#closed = true;
      for (const w of this.#upWaiters.splice(0)) w.failed(new ClosedError("this device is connected from elsewhere"));
      this.events.state("replaced");
      return;
    }
    // A server that only lets in, and then talks nonsense, is not asked ever faster.
    if (performance.now() - this.#joinedAt > maxPause) this.#pause = firstPause;
    this.#joinedAt = Infinity;
    const why = e.reason !== "" ? e.reason.slice(0, 200) : "no connection to the switchboard";
    this.events.state("connecting", why);
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.75 + Math.random() / 2));
    this.#pause = Math.min(2 * this.#pause, maxPause);
  }

  #down(why: Error): void {
    this.#up = false;
    clearTimeout(this.#timer);
    for (const w of this.#waiting.values()) w.failed(why);
    this.#waiting.clear();
  }

  async #ask(f: Partial<BoardFrame> & { op: number }): Promise<BoardFrame> {
    if (!this.#up) await this.#whenUp();
    if (this.#waiting.size >= waitingMost) throw new Error(`${waitingMost} requests wait for the switchboard already`);
    const number = ++this.#number;
    return new Promise((done, failed) => {
      const late = setTimeout(() => {
        this.#waiting.delete(number);
        failed(new Error("the switchboard does not answer"));
      }, answerTimeout);
      const settle = <T>(f: (v: T) => void) => (v: T) => {
        clearTimeout(late);
        f(v);
      };
      this.#waiting.set(number, { done: settle(done), failed: settle(failed) });
      this.#ws?.send(encodeBoard({ ...f, number }));
    });
  }

  #whenUp(): Promise<BoardFrame> {
    if (this.#closed) return Promise.reject(new ClosedError("the line to the switchboard is closed"));
    return new Promise((done, failed) => {
      const w: Waiting = { done, failed };
      this.#upWaiters.push(w);
      setTimeout(() => {
        const at = this.#upWaiters.indexOf(w);
        if (at < 0) return;
        this.#upWaiters.splice(at, 1);
        failed(new Error("there is no connection to the switchboard"));
      }, answerTimeout);
    });
  }
}

function answerText(op: number): string {
  switch (op) {
    case Op.absent:
      return "the device is not connected to this switchboard";
    case Op.busy:
      return "too many messages wait for the device already";
    case Op.stale:
      return "the device's connection changes all the time";
  }
  return `the switchboard gave an unexpected answer, ${op}`;
}
