import "fake-indexeddb/auto";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { type Bytes, concat, hex, random, unhex, utf8 } from "../src/peerlink/bytes";
import { pair } from "../src/peerlink/carrier";
import type { Channel } from "../src/peerlink/channel";
import { ProtocolError } from "../src/peerlink/errors";
import { Input } from "../src/peerlink/input";
import type { DeviceID } from "../src/peerlink/keys";
import { Link } from "../src/peerlink/link";
import { checkText, decodeLetter, decodeReceipt, encodeLetter, encodeReceipt, maxText, Messenger, receive } from "../src/peerlink/messages";
import { FullError, type Message, MessageStore, maxWaiting } from "../src/peerlink/messagestore";
import { read } from "./vectors";

const alice = "aa".repeat(32) as DeviceID;
const bob = "bb".repeat(32) as DeviceID;

beforeEach(() => {
  indexedDB = new IDBFactory();
});

/** At is one end: its store, its messenger, and what that told. */
interface At {
  store: MessageStore;
  messenger: Messenger;
  told: Message[];
}

async function at(open: (peer: DeviceID) => Promise<Channel>): Promise<At> {
  const told: Message[] = [];
  const store = await MessageStore.open();
  return { store, told, messenger: new Messenger(store, open, (m) => told.push({ ...m })) };
}

/** reach opens channels to a messenger, as another device. */
function reach(to: () => Messenger, from: DeviceID, ended: (e: unknown) => void = () => {}): () => Promise<Channel> {
  return async () => {
    const [a, b] = pair();
    new Link(b, "server", { request: (r) => void to().take(from, r.accept()).then(() => ended(undefined), ended) });
    return new Link(a, "client").open("message://1");
  };
}

async function eventually(what: () => boolean): Promise<void> {
  await vi.waitFor(() => expect(what()).toBe(true), { timeout: 10_000, interval: 5 });
}

const none = () => Promise.reject(new Error("away"));
const texts = (told: Message[]) => told.map((m) => `${m.mine ? "me" : "them"} ${m.text} ${m.mark}`);

describe("letters and receipts", () => {
  const v = read<{ letters: { id: string; at: number; text: string; frame: string }[]; receipts: { id: string; why: string; frame: string }[]; bad: string[] }>(
    "cmd/peerchat/internal/chat/testdata/messages.json",
  );
  const body = (frame: string) => receive(new Input(new Blob([unhex(frame)]).stream())) as Promise<Bytes>;
  test("are those of the protocol", async () => {
    expect(v.letters.length).toBeGreaterThan(3);
    for (const { id, at, text, frame } of v.letters) {
      expect(decodeLetter(await body(frame))).toEqual({ id, at, text });
      expect(hex(encodeLetter({ id, at, text }))).toBe(frame);
    }
    for (const { id, why, frame } of v.receipts) {
      expect(decodeReceipt(await body(frame))).toEqual({ id, why });
      expect(hex(encodeReceipt({ id, why }))).toBe(frame);
    }
  });
  for (const b of v.bad) {
    test(`${b} is neither`, () => {
      expect(() => decodeLetter(utf8(b))).toThrow(ProtocolError);
      expect(() => decodeReceipt(utf8(b))).toThrow(ProtocolError);
    });
  }
  test("that announce too much cost nothing, and an end in the middle is one", async () => {
    await expect(body("00ffffff")).rejects.toThrow(ProtocolError);
    await expect(body("00000009aa")).rejects.toThrow("in the middle");
    expect(await receive(new Input(new Blob([]).stream()))).toBeUndefined();
  });
  test("texts that are sent", () => {
    expect([checkText("hi"), checkText("x".repeat(maxText))]).toEqual(["", ""]);
    expect([checkText(""), checkText("é".repeat(maxText / 2) + "x")].every((s) => s !== "")).toBe(true);
  });
});

describe("messages", () => {
  test("arrive once, in their order, and both sides hear what became of them", async () => {
    let b!: At;
    const a = await at(reach(() => b.messenger, alice));
    indexedDB = new IDBFactory(); // Bob's browser
    b = await at(none);
    for (const said of ["one", "two\nlines", "\ud800three"]) await a.messenger.send(bob, said);
    await eventually(() => a.told.filter((m) => m.mark === "delivered").length === 3);
    expect(texts(b.told)).toEqual(["them one ", "them two\nlines ", "them \ufffdthree "]);
    expect(b.told.every((m) => m.peer === alice)).toBe(true);
    expect(a.store.waitingFor()).toEqual([]);
  });
  test("wait for a device that is away, over a reload, and are sent when it comes", async () => {
    const first = await at(none);
    await first.messenger.send(bob, "are you there?");
    expect(texts(first.told)).toEqual(["me are you there? waiting"]);
    first.messenger.close();
    let b!: At;
    let away = true;
    const there = reach(() => b.messenger, alice);
    const a = await at(() => (away ? none() : there())); // the page has been loaded again
    expect(texts(a.store.history(bob, 10))).toEqual(["me are you there? waiting"]);
    b = await at(none);
    b.told.length = 0;
    away = false;
    a.messenger.connected(bob);
    await eventually(() => a.told.some((m) => m.mark === "delivered"));
    expect(a.store.history(bob, 10)[0]!.mark).toBe("delivered");
  });
  test("that come again, as their receipt was lost, are told of once", async () => {
    const b = await at(none);
    const id = hex(random(16));
    for (let i = 0; i < 2; i++) {
      const c = await reach(() => b.messenger, alice)();
      const out = c.writable.getWriter();
      await out.write(encodeLetter({ id, at: 1, text: "once" }));
      expect(decodeReceipt((await receive(new Input(c.readable)))!)).toEqual({ id, why: "" });
      await out.close();
    }
    expect(texts(b.told)).toEqual(["them once "]);
  });
  test("that a device refuses are told as failed, and not sent again", async () => {
    let opened = 0;
    const a = await at(async () => {
      opened++;
      const [x, y] = pair();
      new Link(y, "server", {
        request: async (r) => {
          const c = r.accept();
          const l = decodeLetter((await receive(new Input(c.readable)))!);
          await c.writable.getWriter().write(encodeReceipt({ id: l.id, why: "no room" }));
        },
      });
      return new Link(x, "client").open("message://1");
    });
    await a.messenger.send(bob, "hello");
    await eventually(() => a.told.some((m) => m.mark === "failed"));
    expect([a.told.at(-1)!.reason, opened, a.store.waitingFor().length]).toEqual(["no room", 1, 0]);
  });
  test("of hostile devices end the channel", async () => {
    const b = await at(none);
    for (const bytes of [concat(unhex("ffffffff")), concat(unhex("00000002"), utf8("[]")), concat(unhex("00000005"), unhex("fffefdfcfb"))]) {
      let why: unknown;
      const c = await reach(() => b.messenger, alice, (e) => (why = e))();
      await c.writable.getWriter().write(bytes);
      await eventually(() => why !== undefined);
      expect(why).toBeInstanceOf(ProtocolError);
    }
    expect(b.told).toEqual([]);
  });
  test("that are nothing, or too long, are refused, and the others taken", async () => {
    const b = await at(none);
    const c = await reach(() => b.messenger, alice)();
    const [out, input] = [c.writable.getWriter(), new Input(c.readable)];
    for (const [said, why] of [["", "a message of nothing"], ["x".repeat(maxText + 1), expect.stringContaining("at most 65536")], ["yes", ""]]) {
      const id = hex(random(16));
      await out.write(encodeLetter({ id, at: 1, text: said as string }));
      expect(decodeReceipt((await receive(input))!)).toEqual({ id, why });
    }
    expect(texts(b.told)).toEqual(["them yes "]);
  });
});

describe("the store", () => {
  const m = (n: number, more: Partial<Message> = {}): Omit<Message, "seq"> => ({ peer: bob, id: hex(utf8(String(n).padStart(16))), mine: false, text: `text ${n}`, at: n, mark: "", reason: "", ...more });
  test("drops the oldest of a conversation, here and on the disk, but nothing that waits", async () => {
    const s = await MessageStore.open();
    await s.add(m(0, { mine: true, mark: "waiting" }));
    const big = "x".repeat(maxText);
    for (let i = 1; i <= 70; i++) await s.add(m(i, { text: big }));
    const again = await MessageStore.open();
    for (const x of [s, again]) {
      const all = x.history(bob, 1000);
      expect([all.length, all[0]!.at, all[1]!.at, all.at(-1)!.at]).toEqual([64, 0, 8, 70]);
    }
  });
  const peer = (n: number) => n.toString(16).padStart(64, "0") as DeviceID;
  /** failing has the next writes fail, until its result is called. */
  const failing = (): (() => void) => {
    const spy = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
      throw new Error("disk full");
    });
    return () => spy.mockRestore();
  };
  test("is full for messages to a device that never comes, and where this device wrote in all conversations", async () => {
    const s = await MessageStore.open();
    for (let i = 0; i < 256; i++) await s.add(m(i, { peer: peer(i), mine: true, mark: "delivered" }));
    await expect(s.add(m(1))).rejects.toBeInstanceOf(FullError);
    expect(s.history(bob, 10)).toEqual([]);
    expect(await s.add(m(0, { peer: peer(0), mine: true }))).toBeUndefined(); // it is there
    for (let i = 1; i <= maxWaiting; i++) await s.add(m(i, { peer: peer(0), mine: true, mark: "waiting" }));
    await expect(s.add(m(maxWaiting + 1, { peer: peer(0), mine: true, mark: "waiting" }))).rejects.toBeInstanceOf(FullError);
  });
  test("gives the place of the stranger that was silent longest to a new device, on the disk too", async () => {
    const s = await MessageStore.open();
    await s.add(m(0, { peer: alice }));
    await s.add(m(1, { peer: alice, mine: true, mark: "delivered" }));
    for (let i = 0; i < 255; i++) await s.add(m(i, { peer: peer(i) }));
    await s.add(m(300, { peer: peer(0) })); // no longer the oldest
    const works = failing();
    await expect(s.add(m(1))).rejects.toThrow("disk full");
    works();
    expect([s.history(peer(1), 10).length, s.history(bob, 10).length]).toEqual([1, 0]); // as before
    expect(await s.add(m(1))).toBeDefined();
    for (const x of [s, await MessageStore.open()]) {
      expect([alice, peer(0), peer(1), peer(2), bob].map((p) => x.history(p, 10).length)).toEqual([2, 2, 0, 1, 1]);
    }
  });
  test("gives room to others where a few devices have filled it, and takes nothing that waits", async () => {
    indexedDB = { open: () => { throw new Error("memory is enough"); } } as unknown as IDBFactory;
    const s = await MessageStore.open();
    const big = "x".repeat(maxText);
    await s.add(m(0, { peer: peer(1), mine: true, mark: "waiting" }));
    await s.add(m(0, { peer: alice }));
    for (let p = 0; p < 17; p++) for (let i = 1; i <= 64; i++) await s.add(m(i, { peer: peer(p), text: big }));
    for (const mine of [false, true]) expect(await s.add(m(1, { peer: alice, mine, text: big, mark: mine ? "waiting" : "" }))).toBeDefined();
    const lengths = Array.from({ length: 17 }, (_, p) => s.history(peer(p), 100).length);
    expect(lengths.reduce((a, b) => a + b)).toBeLessThanOrEqual(1022 + 1);
    expect(lengths.every((n) => n >= 56)).toBe(true); // each had to give a few
    expect(s.history(peer(1), 100)[0]!.mark).toBe("waiting");
    expect(s.history(alice, 10).length).toBe(3);
  });
  test("is full where all that is there waits", async () => {
    indexedDB = { open: () => { throw new Error("memory is enough"); } } as unknown as IDBFactory;
    const s = await MessageStore.open();
    const big = "x".repeat(maxText);
    for (let i = 0; i < 1024; i++) await s.add(m(i, { peer: peer(i % 2), mine: true, mark: "waiting", text: big }));
    await expect(s.add(m(1))).rejects.toBeInstanceOf(FullError);
    expect([s.history(bob, 10).length, s.history(peer(0), 2000).length]).toEqual([0, 512]);
  });
  test("holds a message that comes again until the first is on the disk, and stores it where that failed", async () => {
    const s = await MessageStore.open();
    const order: string[] = [];
    const note = (what: string) => (x: Message | undefined) => void order.push(`${what} ${x ? "stored" : "there"}`);
    await Promise.all([s.add(m(1)).then(note("first")), s.add(m(1)).then(note("again"))]);
    expect(order).toEqual(["first stored", "again there"]);
    const works = failing();
    const [first, again] = [s.add(m(2)), s.add(m(2))];
    await expect(first).rejects.toThrow("disk full");
    works();
    expect(await again).toBeDefined();
    expect((await MessageStore.open()).history(bob, 10).map((x) => x.at)).toEqual([1, 2]);
  });
  test("has what had to go for a message again, in its place, where that was not written", async () => {
    const s = await MessageStore.open();
    const big = "x".repeat(maxText);
    for (let i = 1; i <= 64; i++) await s.add(m(i, { text: big }));
    const works = failing();
    await expect(s.add(m(65, { text: big }))).rejects.toThrow("disk full");
    await expect(s.add(m(66, { peer: alice }))).rejects.toThrow("disk full");
    works();
    for (const x of [s, await MessageStore.open()]) expect(x.history(bob, 100).map((y) => y.at)).toEqual(Array.from({ length: 64 }, (_, i) => i + 1));
    expect(s.history(alice, 10)).toEqual([]);
  });
  test("works in memory where the browser keeps nothing, and says so", async () => {
    indexedDB = { open: () => { throw new Error("no room for you"); } } as unknown as IDBFactory;
    const s = await MessageStore.open();
    await s.add(m(1));
    expect([s.problem, s.history(bob, 10).length]).toEqual(["no room for you", 1]);
  });
});
