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

/** FullError: there is no room for another conversation, or too many messages wait. */
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

/** MessageStore keeps messages. What has changed is on the disk when a method resolves. */
export class MessageStore {
  /** problem is why messages are kept in memory alone; "" where they are on the disk. */
  problem = "";
  readonly #talks = new Map<DeviceID, Conversation>();
  #seq = 0;
  #total = 0;

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

  /** add stores a message; undefined where the id is there already. It rejects with a FullError where there is no room. */
  async add(m: Omit<Message, "seq">): Promise<Message | undefined> {
    const talk = this.#talks.get(m.peer);
    if (talk?.ids.has(key(m))) return undefined;
    if (!talk && this.#talks.size >= maxConversations) throw new FullError(`there are ${maxConversations} conversations already`);
    if (this.#total >= maxTotal) throw new FullError(`there are ${this.#total >> 20} MiB of messages already`);
    if (m.mine && this.waiting(m.peer, maxWaiting).length >= maxWaiting) throw new FullError(`${maxWaiting} messages to this device wait already`);
    const stored: Message = { ...m, seq: this.#seq + 1 };
    const gone = this.#put(stored);
    try {
      await this.#keep([stored], gone);
    } catch (e) {
      this.#remove(this.#talks.get(m.peer)!, stored);
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

  /** #put takes a message into memory, and returns what has to go for it: what waits stays. */
  #put(m: Message): Message[] {
    let talk = this.#talks.get(m.peer);
    if (!talk) this.#talks.set(m.peer, (talk = { all: [], ids: new Set(), bytes: 0 }));
    this.#seq = Math.max(this.#seq, m.seq);
    talk.all.push(m);
    talk.ids.add(key(m));
    const n = utf8(m.text).length;
    talk.bytes += n;
    this.#total += n;
    const gone: Message[] = [];
    while (talk.all.length > maxMessages || talk.bytes > maxBytes) {
      const oldest = talk.all.find((x) => x.mark !== "waiting" && x !== m);
      if (!oldest) break;
      this.#remove(talk, oldest);
      gone.push(oldest);
    }
    return gone;
  }

  #remove(talk: Conversation, m: Message): void {
    talk.all.splice(talk.all.indexOf(m), 1);
    talk.ids.delete(key(m));
    const n = utf8(m.text).length;
    talk.bytes -= n;
    this.#total -= n;
  }

  async #keep(put: Message[], gone: Message[]): Promise<void> {
    const at = (m: Message) => `${m.peer} ${key(m)}`;
    if (this.problem === "") await messages.change(put.map((m) => [at(m), m]), gone.map(at));
  }
}
