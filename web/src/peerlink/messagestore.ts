// The messages of all conversations, in memory and, where the browser lets the
// page keep anything, in IndexedDB. One tab uses it at a time.

import { utf8 } from "./bytes";
import type { DeviceID } from "./keys";
import { table } from "./store";

/** Mark is what became of a message of this device; "" for the other's. */
export type Mark = "" | "waiting" | "delivered" | "failed";

/** Message is one message of a conversation. */
export interface Message {
  /** seq orders all messages of this device. */
  seq: number;
  peer: DeviceID;
  /** id has 32 hexadecimal digits, and is one of a sender once. */
  id: string;
  /** mine: this device has written it. */
  mine: boolean;
  text: string;
  /** at is when it was written, by its writer's clock, in milliseconds since 1970. */
  at: number;
  mark: Mark;
  /** reason is why it has failed. */
  reason: string;
}

/** FullError: too many messages wait, or there is no room and nothing that may go for it. */
export class FullError extends Error {
  override name = "FullError";
}

/** How many messages to one device may wait. */
export const maxWaiting = 1000;
/** Of one conversation: messages, and bytes of their texts. The oldest go. */
const maxMessages = 2000;
const maxBytes = 4 << 20;
const maxConversations = 256;
/** Of all texts, in bytes. */
const maxTotal = 64 << 20;

const messages = table("messages");

interface Conversation {
  all: Message[]; // the oldest first
  ids: Set<string>;
  bytes: number;
}

function key(m: Pick<Message, "mine" | "id">): string {
  return `${m.mine ? "to" : "from"} ${m.id}`;
}

/**
 * MessageStore keeps messages. What has changed is on the disk when a method
 * resolves. Where there is no room the oldest messages go, so that no device can
 * keep the others out.
 */
export class MessageStore {
  /** problem is why messages are kept in memory alone; "" where they are on the disk. */
  problem = "";
  readonly #talks = new Map<DeviceID, Conversation>();
  #seq = 0;
  #total = 0;
  #adding: Promise<unknown> = Promise.resolve(); // the last add

  private constructor() {}

  /** open reads what was kept. */
  static async open(): Promise<MessageStore> {
    const s = new MessageStore();
    try {
      const all = (await messages.all()) as Message[];
      for (const m of all.sort((a, b) => a.seq - b.seq)) s.#put(m);
    } catch (e) {
      s.problem = e instanceof Error ? e.message : String(e);
    }
    return s;
  }

  /**
   * add stores a message; undefined where the id is there already. It rejects
   * with a FullError where there is no room. One is stored after another: a
   * message that comes twice is there only once the first is on the disk.
   */
  add(m: Omit<Message, "seq">): Promise<Message | undefined> {
    const added = this.#adding.then(() => this.#add(m));
    this.#adding = added.catch(() => {}); // its caller hears of it
    return added;
  }

  async #add(m: Omit<Message, "seq">): Promise<Message | undefined> {
    if (this.#talks.get(m.peer)?.ids.has(key(m))) return undefined;
    if (m.mine && this.waiting(m.peer, maxWaiting).length >= maxWaiting) throw new FullError(`${maxWaiting} messages to this device wait already`);
    const stored: Message = { ...m, seq: this.#seq + 1 };
    const gone: Message[] = [];
    try {
      if (!this.#talks.has(m.peer) && this.#talks.size >= maxConversations) this.#dropConversation(gone);
      this.#put(stored);
      this.#bound(stored, gone);
      await this.#keep([stored], gone);
    } catch (e) {
      this.#remove(stored);
      for (const g of gone) this.#put(g);
      throw e;
    }
    return stored;
  }

  /** mark changes what became of a message of this device, and returns it. */
  async mark(m: Message, mark: Mark, reason: string): Promise<Message> {
    [m.mark, m.reason] = [mark, reason];
    await this.#keep([m], []);
    return m;
  }

  /** waiting returns the messages to a device that have no receipt, the oldest first, n at most. */
  waiting(peer: DeviceID, n: number): Message[] {
    const out: Message[] = [];
    for (const m of this.#talks.get(peer)?.all ?? []) {
      if (out.length === n) break;
      if (m.mark === "waiting") out.push(m);
    }
    return out;
  }

  /** waitingFor returns the devices to which messages wait. */
  waitingFor(): DeviceID[] {
    return [...this.#talks.keys()].filter((peer) => this.waiting(peer, 1).length > 0);
  }

  /** history returns the n newest messages with a device, the oldest first. */
  history(peer: DeviceID, n: number): Message[] {
    return (this.#talks.get(peer)?.all ?? []).slice(-n);
  }

  /** #put takes a message into memory, in its place. */
  #put(m: Message): void {
    let talk = this.#talks.get(m.peer);
    if (!talk) this.#talks.set(m.peer, (talk = { all: [], ids: new Set(), bytes: 0 }));
    this.#seq = Math.max(this.#seq, m.seq);
    talk.all.splice(talk.all.findLastIndex((x) => x.seq < m.seq) + 1, 0, m);
    talk.ids.add(key(m));
    const n = utf8(m.text).length;
    talk.bytes += n;
    this.#total += n;
  }

  /** #remove takes a message out of memory, and its conversation where that is empty then. */
  #remove(m: Message): void {
    const talk = this.#talks.get(m.peer);
    if (!talk?.ids.delete(key(m))) return;
    talk.all.splice(talk.all.indexOf(m), 1);
    const n = utf8(m.text).length;
    talk.bytes -= n;
    this.#total -= n;
    if (talk.all.length === 0) this.#talks.delete(m.peer);
  }

  /** #bound moves to gone what has to go for m: first of its conversation, then of the largest ones. */
  #bound(m: Message, gone: Message[]): void {
    const talk = this.#talks.get(m.peer)!;
    while ((talk.all.length > maxMessages || talk.bytes > maxBytes) && this.#dropOldest(talk, m, gone));
    while (this.#total > maxTotal) {
      const largest = [...this.#talks.values()].sort((a, b) => b.bytes - a.bytes);
      if (!largest.some((t) => this.#dropOldest(t, m, gone))) throw new FullError(`${maxTotal >> 20} MiB of messages wait already`);
    }
  }

  /** #dropOldest moves the oldest message of a conversation to gone; false where it has none but m and what waits. */
  #dropOldest(talk: Conversation, m: Message, gone: Message[]): boolean {
    const oldest = talk.all.find((x) => x.mark !== "waiting" && x !== m);
    if (!oldest) return false;
    this.#remove(oldest);
    gone.push(oldest);
    return true;
  }

  /** #dropConversation moves one conversation to gone: where this device never wrote, and no message came for the longest time. */
  #dropConversation(gone: Message[]): void {
    const theirs = [...this.#talks.values()].filter((t) => !t.all.some((x) => x.mine));
    if (theirs.length === 0) throw new FullError(`there are ${maxConversations} conversations already`);
    const newest = (t: Conversation) => t.all.at(-1)!.seq;
    const oldest = theirs.reduce((a, b) => (newest(b) < newest(a) ? b : a));
    gone.push(...oldest.all);
    for (const m of gone) this.#remove(m);
  }

  async #keep(put: Message[], gone: Message[]): Promise<void> {
    const at = (m: Message) => `${m.peer} ${key(m)}`;
    if (this.problem === "") await messages.change(put.map((m) => [at(m), m]), gone.map(at));
  }
}
