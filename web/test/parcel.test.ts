import { blake3 } from "@noble/hashes/blake3.js";
import { describe, expect, test, vi } from "vitest";
import { type Bytes, concat, hex, unhex, utf8 } from "../src/peerlink/bytes";
import { pair } from "../src/peerlink/carrier";
import type { Channel } from "../src/peerlink/channel";
import { DeclinedError, ProtocolError } from "../src/peerlink/errors";
import { badFileName, cleanName, cleanPath, Input } from "../src/peerlink/input";
import type { DeviceID } from "../src/peerlink/keys";
import { Link } from "../src/peerlink/link";
import { type Arriving, type FileSink, maxEntries, type Offered, Receiver, type Taking } from "../src/peerlink/parcelreceive";
import { FileSender } from "../src/peerlink/parcelsend";
import {
  decodeAnswer, decodeDigest, decodeEntry, decodeIndex, decodeKept, decodeOffer, decodeReason, decodeStart, decodeWant, encode, encodeEntry, encodeOffer,
  encodePiece, encodeReason, encodeWant, type Frame, Kind, type Offer, sumOf, newHash, Wire,
} from "../src/peerlink/parcelwire";
import { shortfall } from "../src/page/fileitem";
import { read } from "./vectors";

const content = new Uint8Array(1_000_003).map((_, i) => (i * i) >> 3);
const sum = hex(blake3(content));
const alice = "aa".repeat(32) as DeviceID;
const never = new AbortController().signal;

class Sink implements FileSink {
  parts: Bytes[] = [];
  state = "open";
  async write(b: Bytes) {
    this.parts.push(b.slice());
  }
  async keep() {
    this.state = "kept";
  }
  async discard() {
    this.state = "discarded";
  }
  get bytes() {
    return concat(...this.parts);
  }
}

/** Takes is a Taking that notes all it is told. */
class Takes implements Taking {
  sinks: Sink[] = [];
  told: string[] = [];
  seen: number[] = [];
  over: (Error | undefined)[] = [];
  whole = -1; // of the offered entries
  onMoved: (at: number) => void = () => {};
  async place(f: Arriving) {
    this.told.push(`place ${f.path} ${f.size}`);
    const s = new Sink();
    this.sinks.push(s);
    return s;
  }
  moved(_: Arriving, at: number) {
    this.seen.push(at);
    this.onMoved(at);
  }
  kept(f: Arriving, s: string) {
    this.told.push(`kept ${f.path} ${s}`);
  }
  failed(f: Arriving, why: Error) {
    this.told.push(`failed ${f.path}: ${why.message}`);
  }
  ended(why: Error | undefined, kept: number) {
    this.over.push(why);
    this.whole = kept;
  }
}

/** Bob is a receiver, and links to it that can be cut. */
class Bob {
  takes = new Takes();
  offers: Offered[] = [];
  served: Promise<PromiseSettledResult<void>>[] = [];
  channels: Channel[] = []; // the sender's
  readonly receiver = new Receiver(async (o) => {
    this.offers.push(o);
    await this.consent();
    return this.takes;
  });
  consent: () => Promise<void> = async () => {};

  readonly open = async (name: string): Promise<Channel> => {
    const [a, b] = pair();
    new Link(b, "server", { request: (r) => void this.served.push(Promise.allSettled([this.receiver.serve(r.accept(), alice)]).then(([s]) => s!)) });
    const c = await new Link(a, "client").open(name);
    this.channels.push(c);
    return c;
  };

  /** raw opens a channel on which the test is the sender. */
  async raw(): Promise<Wire> {
    return new Wire(await this.open("files://00"));
  }
}

const offer = (more: Partial<Offer> = {}): Offer => ({ version: 2, id: new Uint8Array(16), entries: 1, bytes: 100, names: ["x"], ...more });
const entry = (index: number, path: string[], size: number, folder = false) => encodeEntry({ index, path, folder, size, modified: 0, executable: false });

async function agreed(bob: Bob, o: Partial<Offer> = {}): Promise<Wire> {
  const w = await bob.raw();
  await w.send(encodeOffer(offer(o)));
  expect(decodeAnswer((await w.next()).body)).toEqual({ accepted: true, reason: "" });
  return w;
}

describe("frames", () => {
  const id = unhex("000102030405060708090a0b0c0d0e0f");
  const hello = blake3(utf8("hello")) as Bytes;
  const cases: Record<string, [Bytes, (b: Bytes) => unknown, unknown]> = {
    nothing: [encode(Kind.nothing), () => 0, 0],
    offer: [encodeOffer({ version: 2, id, entries: 2, bytes: 5, names: ["tree"] }), decodeOffer, { version: 2, id, entries: 2, bytes: 5, names: ["tree"] }],
    "offer: entries are told when asked": [
      encodeOffer({ version: 2, id, entries: 2, bytes: 5, names: ["tree"], lists: true }), decodeOffer, { version: 2, id, entries: 2, bytes: 5, names: ["tree"] },
    ],
    list: [encode(Kind.list), () => 0, 0],
    "answer: yes": [encode(Kind.answer, true, ""), decodeAnswer, { accepted: true, reason: "" }],
    "answer: no": [encode(Kind.answer, false, "not wanted"), decodeAnswer, { accepted: false, reason: "not wanted" }],
    "entry: a folder": [entry(0, ["tree"], 0, true), decodeEntry, { index: 0, path: ["tree"], folder: true, size: 0, modified: 0, executable: false }],
    "entry: a file": [
      encodeEntry({ index: 1, path: ["tree", "é.txt"], folder: false, size: 5, modified: 1_700_000_000_000, executable: true }),
      decodeEntry, { index: 1, path: ["tree", "é.txt"], folder: false, size: 5, modified: 1_700_000_000_000, executable: true },
    ],
    compare: [encode(Kind.compare, 1), decodeIndex, 1],
    digest: [encode(Kind.digest, 1, hello), decodeDigest, { index: 1, sum: hello }],
    "want: all": [encodeWant({ index: 1, offset: 0, sum: new Uint8Array(0) }), decodeWant, { index: 1, offset: 0, sum: new Uint8Array(0) }],
    "want: the rest": [encodeWant({ index: 1, offset: 65536, sum: hello }), decodeWant, { index: 1, offset: 65536, sum: hello }],
    start: [encode(Kind.start, 1, 65536), decodeStart, { index: 1, from: 65536 }],
    broken: [encodeReason(Kind.broken, 1, "it changed"), decodeReason, { index: 1, reason: "it changed" }],
    kept: [encode(Kind.kept, 1, "tree/é (1).txt", false), decodeKept, { index: 1, name: "tree/é (1).txt", same: false }],
    failed: [encodeReason(Kind.failed, 1, "not enough disk space"), decodeReason, { index: 1, reason: "not enough disk space" }],
    end: [encode(Kind.end), () => 0, 0],
    "piece: hello": [encodePiece(utf8("hello"), hello), (b) => hex(b), hex(concat(utf8("hello"), hello))],
  };
  const golden = read<{ name: string; frame: string }[]>("cmd/peerchat/internal/files/parcel/testdata/frames.json");
  test("all of them have a case", () => expect(golden.map((v) => v.name)).toEqual(Object.keys(cases)));
  for (const { name, frame } of golden) {
    test(`${name} is that of the protocol`, () => {
      const [sent, decode, want] = cases[name]!;
      expect(hex(sent)).toBe(frame);
      expect(decode(unhex(frame).slice(5))).toEqual(want);
    });
  }
  test("a running sum is that of the whole, at any length", () => {
    const h = newHash();
    let at = 0;
    for (const n of [0, 1, 1023, 1, 1024, 65536, 3, 200_000]) {
      h.update(content.subarray(at, (at += n)));
      expect(hex(sumOf(h))).toBe(hex(blake3(content.subarray(0, at))));
    }
  });
});

describe("files", () => {
  test("arrive whole, with their hash, and are kept only then", async () => {
    const bob = new Bob();
    const progress: number[] = [];
    const sent = await new FileSender(bob.open, "photo.jpg", new Blob([content]), { progress: (n) => progress.push(n) }).send(never);
    await Promise.all(bob.served);
    expect(sent).toBe(sum);
    expect(bob.offers).toEqual([{ from: alice, names: ["photo.jpg"], entries: 1, bytes: content.length }]);
    expect(bob.takes.told).toEqual([`place photo.jpg ${content.length}`, `kept photo.jpg ${sum}`]);
    expect(Buffer.compare(bob.takes.sinks[0]!.bytes, content)).toBe(0);
    expect([bob.takes.sinks[0]!.state, bob.takes.seen.at(-1), progress.at(-1), bob.takes.over]).toEqual(["kept", content.length, content.length, [undefined]]);
    expect(await bob.channels[0]!.closed).toBeUndefined();
  });
  test("of no bytes", async () => {
    const bob = new Bob();
    await new FileSender(bob.open, "empty", new Blob([])).send(never);
    expect(bob.takes.sinks[0]!.state).toBe("kept");
  });
  test("are declined with a reason", async () => {
    const bob = new Bob();
    bob.consent = () => Promise.reject(new Error("no, thanks"));
    const e = await new FileSender(bob.open, "x", new Blob([content])).send(never).catch((e: unknown) => e);
    expect(e).toBeInstanceOf(DeclinedError);
    expect((e as DeclinedError).reason).toBe("no, thanks");
    expect((await bob.served[0]!).status).toBe("rejected");
    expect(bob.channels.length).toBe(1);
  });
  test("that are stopped by the sender go on when they are sent again", async () => {
    const bob = new Bob();
    const stop = new AbortController();
    bob.takes.onMoved = () => stop.abort(new Error("stopped"));
    const sender = new FileSender(bob.open, "x", new Blob([content]));
    await expect(sender.send(stop.signal)).rejects.toThrow("stopped");
    expect((await bob.served[0]!).status).toBe("rejected");
    expect([bob.takes.sinks[0]!.state, bob.takes.over.length]).toEqual(["open", 1]);
    bob.takes.onMoved = () => {};
    expect(await sender.send(never)).toBe(sum);
    expect([bob.takes.sinks.length, bob.offers.length]).toEqual([1, 1]); // there was no second question
    expect(Buffer.compare(bob.takes.sinks[0]!.bytes, content)).toBe(0);
  });
  test("that are cut go on by themselves, and what was there does not come again", async () => {
    const bob = new Bob();
    let cuts = 0;
    bob.takes.onMoved = (at) => {
      if (at > (cuts + 1) * 200_000 && cuts < 3 && bob.channels.length > cuts) bob.channels[cuts++]!.reset();
    };
    const seen: Error[] = [];
    expect(await new FileSender(bob.open, "x", new Blob([content]), { cut: (e) => seen.push(e) }).send(never)).toBe(sum);
    expect([cuts, seen.length, bob.offers.length, bob.takes.sinks.length]).toEqual([3, 3, 1, 1]);
    expect(bob.takes.sinks[0]!.bytes.length).toBe(content.length);
    expect(bob.takes.seen.every((at, i) => i === 0 || at > bob.takes.seen[i - 1]!)).toBe(true);
  });
  test("begun again by another sending of the same device go on with what is there", async () => {
    const bob = new Bob();
    const stop = new AbortController();
    bob.takes.onMoved = () => stop.abort(new Error("stopped"));
    await expect(new FileSender(bob.open, "x", new Blob([content])).send(stop.signal)).rejects.toThrow("stopped");
    await bob.served[0];
    bob.takes.onMoved = () => {};
    expect(await new FileSender(bob.open, "x", new Blob([content])).send(never)).toBe(sum);
    expect([bob.takes.sinks.length, bob.offers.length]).toEqual([1, 2]);
  });
  test("with other content than what is there come whole", async () => {
    const bob = new Bob();
    const stop = new AbortController();
    bob.takes.onMoved = () => stop.abort(new Error("stopped"));
    await expect(new FileSender(bob.open, "x", new Blob([content])).send(stop.signal)).rejects.toThrow("stopped");
    await bob.served[0];
    bob.takes.onMoved = () => {};
    const other = content.map((v) => v ^ 1);
    expect(await new FileSender(bob.open, "x", new Blob([other])).send(never)).toBe(hex(blake3(other)));
    expect(bob.takes.sinks.map((s) => s.state)).toEqual(["discarded", "kept"]);
    expect(Buffer.compare(bob.takes.sinks[1]!.bytes, other)).toBe(0);
  });
  test("that a receiver cannot store: the sender is told, and no more", async () => {
    const bob = new Bob();
    bob.takes.place = async () => {
      const s = new Sink();
      s.write = () => Promise.reject(new Error("disk full at /secret"));
      bob.takes.sinks.push(s);
      return s;
    };
    const e = (await new FileSender(bob.open, "x", new Blob([content])).send(never).catch((e: unknown) => e)) as Error;
    expect(e.message).toContain("could not be stored");
    expect(e.message).not.toContain("secret");
    expect(bob.takes.told).toEqual(["failed x: disk full at /secret"]);
    expect([bob.takes.sinks[0]!.state, (await bob.served[0]!).status]).toEqual(["discarded", "fulfilled"]);
  });
  test("that change while they are sent fail, on both sides", async () => {
    const bob = new Bob();
    const file = new Blob([content]);
    const short = Object.create(file, { size: { value: content.length }, slice: { value: (from: number) => file.slice(from, 500_000) } }) as Blob;
    await expect(new FileSender(bob.open, "x", short).send(never)).rejects.toThrow("has changed");
    expect((await bob.served[0]!).status).toBe("fulfilled");
    expect(bob.takes.told.at(-1)).toMatch(/^failed x: the sender: it changed/);
    expect(bob.takes.sinks[0]!.state).toBe("discarded");
  });
});

describe("a sender that comes back", () => {
  test("takes the place of its channel that is not known to be dead", async () => {
    const bob = new Bob();
    const first = await agreed(bob, { bytes: content.length });
    await first.send(entry(0, ["x"], content.length));
    expect(decodeWant((await first.next()).body).offset).toBe(0);
    const second = await agreed(bob, { bytes: content.length });
    expect((await bob.served[0]!).status).toBe("rejected");
    await second.send(entry(0, ["x"], content.length));
    expect((await second.next()).kind).toBe(Kind.want);
    expect([bob.offers.length, bob.takes.sinks.length]).toEqual([1, 1]);
  });
  test("twice at once gets one channel, and one content", async () => {
    const bob = new Bob();
    const first = await agreed(bob);
    await first.send(entry(0, ["x"], 3));
    expect((await first.next()).kind).toBe(Kind.want);
    const again = [await bob.raw(), await bob.raw()];
    await Promise.all(again.map((w) => w.send(encodeOffer(offer()))));
    const lost = await Promise.race([1, 2].map(async (i) => ({ i, s: await bob.served[i]! }))); // one of them has no place
    expect(lost.s.status === "rejected" && lost.s.reason).toMatchObject({ message: "the sender has come back on another channel" });
    const w = again[2 - lost.i]!;
    expect((await w.next()).kind).toBe(Kind.answer);
    await w.send(entry(0, ["x"], 3));
    expect((await w.next()).kind).toBe(Kind.want);
    await w.send(encode(Kind.start, 0, 0));
    await w.send(encodePiece(utf8("abc"), blake3(utf8("abc"))));
    expect((await w.next()).kind).toBe(Kind.kept);
    await w.send(encode(Kind.end));
    expect((await bob.served[3 - lost.i]!).status).toBe("fulfilled");
    expect(bob.takes.told).toEqual(["place x 3", `kept x ${hex(blake3(utf8("abc")))}`]);
    expect([bob.takes.whole, bob.takes.sinks[0]!.bytes]).toEqual([1, utf8("abc")]);
  });
  test("and did not hear that a file is kept is asked for its sum, and hears so then", async () => {
    const bob = new Bob();
    const h = blake3(utf8("abc")) as Bytes;
    const first = await agreed(bob, { entries: 2 });
    for (const f of [entry(0, ["x"], 3)]) await first.send(f);
    expect((await first.next()).kind).toBe(Kind.want);
    await first.send(encode(Kind.start, 0, 0));
    await first.send(encodePiece(utf8("abc"), h));
    expect((await first.next()).kind).toBe(Kind.kept);
    first.cut(new Error("cut"));
    await bob.served[0];
    const second = await agreed(bob, { entries: 2 });
    await second.send(entry(0, ["x"], 3));
    expect((await second.next()).kind).toBe(Kind.compare);
    await second.send(encode(Kind.digest, 0, h));
    expect(decodeKept((await second.next()).body)).toEqual({ index: 0, name: "x", same: true });
    expect(bob.takes.told).toEqual(["place x 3", `kept x ${hex(h)}`]);
    await second.send(encode(Kind.end));
    await bob.served[1];
    expect(bob.takes.whole).toBe(1); // the other entry was never announced
  });
});

test("folders, and names that only some systems can have", async () => {
  const bob = new Bob();
  const w = await agreed(bob, { entries: 5, names: ["tree", "a:b"] });
  expect(bob.offers[0]!.names).toEqual(["tree", "a%3Ab"]);
  await w.send(entry(0, ["tree"], 0, true));
  expect(decodeKept((await w.next()).body).index).toBe(0);
  await w.send(entry(1, ["tree", "CON.txt"], 3));
  await w.send(entry(2, ["tree", "..", "passwd"], 3));
  await w.send(entry(3, ["tree", "x\u202egpj.exe"], 3));
  const frames: Frame[] = [await w.next(), await w.next(), await w.next()];
  expect(frames.map((f) => [f.kind, decodeIndex(f.body)])).toEqual([[Kind.want, 1], [Kind.failed, 2], [Kind.want, 3]]);
  expect(bob.takes.told).toEqual(["place tree/CON_.txt 3", expect.stringContaining("failed"), "place tree/x%E2%80%AEgpj.exe 3"]);
  for (const i of [1, 3]) {
    await w.send(encode(Kind.start, i, 0));
    await w.send(encodePiece(utf8("abc"), blake3(utf8("abc"))));
    expect(decodeKept((await w.next()).body).index).toBe(i);
  }
  await w.send(encode(Kind.end));
  expect((await bob.served[0]!).status).toBe("fulfilled");
});

// case: S2
test("nothing comes under another name than the user was shown", async () => {
  const bob = new Bob();
  const w = await agreed(bob, { entries: 2, names: ["photo.jpg", "x"] });
  await w.send(entry(0, [".bashrc"], 3));
  await w.send(entry(1, ["photo.jpg", "x"], 3));
  for (const i of [0, 1]) {
    const f = await w.next();
    expect([f.kind, decodeIndex(f.body)]).toEqual([Kind.failed, i]);
  }
  await w.send(encode(Kind.end));
  await bob.served[0];
  expect(bob.takes.told).toEqual([expect.stringMatching(/^failed .bashrc: it is not what was agreed/), expect.stringMatching(/^failed photo.jpg.x: it is not/)]);
});

// case: S2
test("who comes back brings nothing in the place of what is here, nor beside it", async () => {
  const bob = new Bob();
  const abc = (w: Wire, i: number) => w.send(encode(Kind.start, i, 0)).then(() => w.send(encodePiece(utf8("abc"), blake3(utf8("abc")))));
  const first = await agreed(bob, { entries: 2, bytes: 5, names: ["d"] });
  await first.send(entry(0, ["d", "x"], 3));
  expect((await first.next()).kind).toBe(Kind.want);
  await abc(first, 0);
  expect((await first.next()).kind).toBe(Kind.kept);
  first.cut(new Error("cut"));
  await bob.served[0];
  const second = await agreed(bob, { entries: 2, bytes: 5, names: ["d"] });
  await second.send(entry(0, ["d", "x"], 3));
  expect((await second.next()).kind).toBe(Kind.compare);
  await second.send(encode(Kind.digest, 0, blake3(utf8("cba"))));
  expect((await second.next()).kind).toBe(Kind.failed);
  second.cut(new Error("cut"));
  await bob.served[1];
  const third = await agreed(bob, { entries: 2, bytes: 5, names: ["d"] });
  await third.send(entry(0, ["d", "y"], 3));
  expect((await third.next()).kind).toBe(Kind.failed);
  await third.send(entry(1, ["d", "z"], 2));
  expect((await third.next()).kind).toBe(Kind.want);
  third.cut(new Error("cut"));
  await bob.served[2];
  expect([bob.offers.length, bob.takes.told.filter((t) => t.startsWith("kept")).length]).toEqual([1, 1]);
});

// case: S2
test("a sender tells what it will send, when asked before an answer", async () => {
  const [a, b] = pair();
  const heard: (number | string)[] = [];
  const served = new Promise<void>((done, failed) => {
    new Link(b, "server", { request: (r) => {
      const w = new Wire(r.accept());
      (async () => {
        await w.next();
        await w.send(encode(Kind.list));
        const told = decodeEntry((await w.next()).body);
        heard.push(told.path.join("/"), told.size, (await w.next()).kind);
        await w.send(encode(Kind.answer, false, "no"));
      })().then(done, failed);
    } });
  });
  const link = new Link(a, "client");
  const e = await new FileSender((name) => link.open(name), "x", new Blob(["abc"])).send(never).catch((e: unknown) => e);
  await served;
  expect([(e as DeclinedError).reason, heard]).toEqual(["no", ["x", 3, Kind.end]]);
});

describe("what was offered and did not come", () => {
  test("is no success: the sender ended before it announced anything", async () => {
    const bob = new Bob();
    const w = await agreed(bob);
    await w.send(encode(Kind.end));
    await bob.served[0];
    expect([bob.takes.over, bob.takes.whole]).toEqual([[undefined], 0]);
  });
  test("is not counted as kept: broken, failed, or never announced", async () => {
    const bob = new Bob();
    const w = await agreed(bob, { entries: 4, names: ["tree"] });
    await w.send(entry(0, ["tree"], 0, true));
    await w.send(entry(1, ["tree", "a"], 3));
    await w.send(entry(2, ["tree", ".."], 3));
    for (const kind of [Kind.kept, Kind.want, Kind.failed]) expect((await w.next()).kind).toBe(kind);
    await w.send(encodeReason(Kind.broken, 1, "it is gone"));
    await w.send(encode(Kind.end));
    await bob.served[0];
    expect([bob.takes.over, bob.takes.whole]).toEqual([[undefined], 1]);
  });
  test("is said to the user", () => {
    expect([shortfall(1, 1, []), shortfall(4, 4, ["it failed before a cut"])]).toEqual(["", ""]);
    expect(shortfall(1, 0, [])).toBe("The sender did not send it");
    expect(shortfall(1, 0, ["disk full"])).toBe("Disk full");
    expect([shortfall(4, 1, []), shortfall(4, 0, [])]).toEqual(["1 of 4 came", "0 of 4 came"]);
  });
});

describe("hostile senders", () => {
  const refused: Record<string, Partial<Offer>> = {
    "another version": { version: 3 }, "too many entries": { entries: maxEntries + 1 }, "no name": { names: [] }, "a path as a name": { names: ["../../etc/passwd"] },
    "nothing as a name": { names: [""] }, "a dot": { names: ["."] }, "a long name": { names: ["x".repeat(256)] }, "no entries": { entries: 0 },
  };
  for (const [what, o] of Object.entries(refused)) {
    test(`an offer with ${what} is refused before the user is asked`, async () => {
      const bob = new Bob();
      const w = await bob.raw();
      if (what === "a long name") await w.send(encode(Kind.offer, 2, new Uint8Array(16), 1, 1, ["x".repeat(256)]));
      else await w.send(encodeOffer(offer(o)));
      const f = await w.next().catch(() => undefined);
      if (f) expect(decodeAnswer(f.body).accepted).toBe(false);
      expect([(await bob.served[0]!).status, bob.offers.length]).toEqual(["rejected", 0]);
    });
  }
  const head = (n: number, kind: number) => {
    const b = new Uint8Array(5);
    new DataView(b.buffer).setUint32(0, n);
    b[4] = kind;
    return b;
  };
  const abc = encodePiece(utf8("abc"), blake3(utf8("abc")));
  const cut: Record<string, Bytes[]> = {
    "a message of 4 GiB": [head(0xffffffff, Kind.entry)],
    "a piece of 4 GiB": [head(0xffffffff, Kind.piece)],
    "a piece without a sum": [head(31, Kind.piece)],
    "nothing, of 1 MiB": [head(1 << 20, Kind.nothing)],
    "a second offer": [encodeOffer(offer())],
    "a receiver's word": [encode(Kind.kept, 0, "x", false)],
    "an entry beyond the offer": [entry(0, ["x"], 3), entry(1, ["y"], 3)],
    "an entry out of turn": [entry(1, ["x"], 3)],
    "more bytes than offered": [entry(0, ["x"], 101)],
    "a folder with a size": [entry(0, ["x"], 3, true)],
    "an entry without a path": [entry(0, [], 3)],
    "a piece of nothing": [abc],
    "a start of nothing": [encode(Kind.start, 0, 0)],
    "a start in the middle of nothing": [entry(0, ["x"], 3), encode(Kind.start, 0, 2)],
    "too much content": [entry(0, ["x"], 2), encode(Kind.start, 0, 0), abc],
    "too small a piece": [entry(0, ["x"], 100), encode(Kind.start, 0, 0), abc],
    "a digest without a question": [entry(0, ["x"], 3), encode(Kind.digest, 0, new Uint8Array(32))],
    "the end before the end": [entry(0, ["x"], 3), encode(Kind.end)],
    "a broken entry that is none": [encodeReason(Kind.broken, 0, "")],
    "a long reason": [entry(0, ["x"], 3), encode(Kind.broken, 0, "x".repeat(256))],
    "msgpack that lies": [concat(head(5, Kind.entry), unhex("ddffffffff"))],
  };
  for (const [what, frames] of Object.entries(cut)) {
    test(`${what} ends the transfer, and keeps nothing`, async () => {
      const bob = new Bob();
      const w = await agreed(bob);
      for (const f of frames) await w.send(f).catch(() => {});
      const s = await bob.served[0]!;
      expect(s.status === "rejected" && s.reason).toBeInstanceOf(ProtocolError);
      expect(bob.takes.told.filter((t) => t.startsWith("kept"))).toEqual([]);
    });
  }
  test("content that does not match its sum fails, and is discarded", async () => {
    const bob = new Bob();
    const w = await agreed(bob);
    await w.send(entry(0, ["x"], 3));
    await w.next();
    await w.send(encode(Kind.start, 0, 0));
    await w.send(encodePiece(utf8("abd"), blake3(utf8("abc"))));
    const f = await w.next();
    expect([f.kind, decodeReason(f.body).reason, bob.takes.sinks[0]!.state]).toEqual([Kind.failed, "the content does not match its BLAKE3", "discarded"]);
  });
  test("a frame while the user is asked ends the question", async () => {
    const bob = new Bob();
    bob.consent = () => new Promise(() => {});
    const w = await bob.raw();
    await w.send(encodeOffer(offer()));
    await w.send(entry(0, ["x"], 3));
    const s = await bob.served[0]!;
    expect(s.status === "rejected" && s.reason).toBeInstanceOf(ProtocolError);
  });
  test("one device has eight transfers at once", async () => {
    const bob = new Bob();
    bob.consent = () => new Promise(() => {});
    const wires = await Promise.all(Array.from({ length: 9 }, () => bob.raw()));
    for (const [i, w] of wires.entries()) await w.send(encodeOffer(offer({ id: new Uint8Array(16).fill(i) })));
    expect(decodeAnswer((await wires[8]!.next()).body).reason).toBe("too many transfers at once");
  });
});

describe("hostile receivers", () => {
  const replies: Record<string, Bytes[]> = {
    "kept before it was sent": [encode(Kind.kept, 0, "x", false)],
    "a want beyond the end": [encodeWant({ index: 0, offset: 2 ** 40, sum: new Uint8Array(32) })],
    "a want of another entry": [encodeWant({ index: 1, offset: 0, sum: new Uint8Array(0) })],
    "a third question": [encode(Kind.compare, 0), encode(Kind.compare, 0), encode(Kind.compare, 0)],
    "a sender's word": [encode(Kind.end)],
    "an offset without a sum": [encode(Kind.want, 0, 65536, new Uint8Array(0))],
  };
  for (const [what, frames] of Object.entries(replies)) {
    test(`${what} ends the transfer for good`, async () => {
      let opened = 0;
      const open = async () => {
        opened++;
        const [a, b] = pair();
        new Link(b, "server", {
          request: async (r) => {
            const w = new Wire(r.accept());
            await w.next();
            await w.send(encode(Kind.answer, true, ""));
            await w.next();
            for (const f of frames) await w.send(f).catch(() => {});
            while (await w.next().catch(() => undefined));
          },
        });
        return new Link(a, "client").open("files://00");
      };
      await expect(new FileSender(open, "x", new Blob([content])).send(never)).rejects.toThrow(ProtocolError);
      expect(opened).toBe(1);
    });
  }
});

test("silence of a minute ends a transfer; nothing, said in time, does not", async () => {
  vi.useFakeTimers();
  try {
    const channel = { received: 0, sent: 0, closed: new Promise(() => {}), close: async () => {}, readable: new ReadableStream(), writable: new WritableStream<Uint8Array>({ write: (b) => void said.push(b[4]!) }) };
    const said: number[] = [];
    let code = -1;
    const broken = new Promise<never>((_, no) => Object.assign(channel, { reset: (c: number) => ((code = c), no(new Error("reset"))) }));
    channel.readable = new ReadableStream({ pull: () => broken });
    const w = new Wire(channel as unknown as Channel);
    const heard = w.next();
    heard.catch(() => {});
    await vi.advanceTimersByTimeAsync(50_000);
    channel.received++;
    await vi.advanceTimersByTimeAsync(50_000);
    expect(code).toBe(-1);
    expect(said.length).toBeGreaterThan(5);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(code).not.toBe(-1);
    await expect(heard).rejects.toThrow("silent for 60 s");
    w.end();
  } finally {
    vi.useRealTimers();
  }
});

test("names", () => {
  for (const name of ["photo.jpg", ".profile", "Zoë’s résumé (1).pdf", "日本.txt", "contest", "COM10"]) expect(cleanName(name)).toBe(name);
  for (const [name, clean] of [["a:b", "a%3Ab"], ["CON", "CON_"], ["con.txt", "con_.txt"], ["lpt1 .x", "lpt1 _.x"], ["dot.", "dot%2E"], [" x ", "%20x%20"], ["bell\x07", "bell%07"], ["a\u3164", "a%E3%85%A4"], ["1\ufe0f.txt", "1\ufe0f.txt"], ["e\u0301", "é"]] as const) expect(cleanName(name)).toBe(clean);
  for (const name of ["", ".", "..", "a/b", "nul\0", "x".repeat(256), ":".repeat(100), "\ud800"]) {
    expect(badFileName(name)).not.toBe("");
    expect(() => cleanPath(["a", name])).toThrow();
  }
  expect(() => cleanPath([])).toThrow();
  expect(() => cleanPath(Array<string>(33).fill("a"))).toThrow();
  expect(() => cleanPath(Array<string>(20).fill("x".repeat(255)))).toThrow();
});

test("a stream that ends too soon", async () => {
  const input = new Input(new Blob([utf8("abc")]).stream());
  expect(await input.next(2)).toEqual(utf8("ab"));
  await expect(input.exactly(2)).rejects.toThrow("in the middle");
});
