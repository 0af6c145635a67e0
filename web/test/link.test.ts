import { describe, expect, test, vi } from "vitest";
import { type Bytes, concat, equal, utf8 } from "../src/peerlink/bytes";
import { type Carrier, pair, type Sink } from "../src/peerlink/carrier";
import { type Channel, firstWindow, pieces } from "../src/peerlink/channel";
import { Code, DeclinedError, GoingAwayError, ProtocolError, ResetError } from "../src/peerlink/errors";
import { Ids } from "../src/peerlink/ids";
import { type Incoming, Link, openOn } from "../src/peerlink/link";
import { Liveness } from "../src/peerlink/liveness";
import { Reader } from "../src/peerlink/packed";
import { decodeMessage, encodeMessage, encodeRequest, frame, type Message, protocolID, Splitter } from "../src/peerlink/wire";

function links(request?: (r: Incoming) => void): { client: Link; server: Link; ends: [Carrier, Carrier] } {
  const ends = pair();
  const server = new Link(ends[1], "server", request ? { request } : {});
  return { client: new Link(ends[0], "client"), server, ends };
}

/** accepted opens a channel from client to server and returns both ends. */
async function accepted(name = "chat://test"): Promise<{ near: Channel; far: Channel; client: Link; server: Link; ends: [Carrier, Carrier] }> {
  let far!: Channel;
  const l = links((r) => (far = r.accept()));
  const near = await l.client.open(name);
  return { near, far, ...l };
}

async function all(c: Channel): Promise<Bytes> {
  const parts: Bytes[] = [];
  for await (const p of pieces(c.readable)) parts.push(p);
  return concat(...parts);
}

async function write(c: Channel, b: Uint8Array): Promise<void> {
  const w = c.writable.getWriter();
  await w.write(b);
  w.releaseLock();
}

describe("channels", () => {
  test("carry bytes both ways and end one direction at a time", async () => {
    const { near, far } = await accepted();
    await write(near, utf8("there"));
    await near.writable.close();
    expect(await all(far)).toEqual(utf8("there"));
    await write(far, utf8("and back"));
    await far.writable.close();
    expect(await all(near)).toEqual(utf8("and back"));
    expect(await near.closed).toBeUndefined();
    expect(await far.closed).toBeUndefined();
  });

  test("carry more than a window, and only as fast as it is read", async () => {
    const { near, far } = await accepted();
    const big = new Uint8Array(3 << 20).map((_, i) => i * 7);
    let written = false;
    const w = near.writable.getWriter();
    const writing = w.write(big).then(() => (written = true));
    await new Promise((r) => setTimeout(r, 30));
    expect(written).toBe(false);
    expect(near.sent).toBe(firstWindow); // the peer's window, and not a byte more
    const got = all(far);
    await writing;
    await w.close();
    expect(equal(await got, big)).toBe(true);
  });

  test("are declined with a reason", async () => {
    for (const code of [0, 300]) {
      const { client } = links((r) => r.decline("not now", code));
      const e = await client.open("file://x").catch((e: unknown) => e);
      expect(e).toBeInstanceOf(DeclinedError);
      expect(e).toMatchObject({ reason: "not now", code });
      expect(client.channels).toBe(0);
    }
  });

  test("are declined with a code of its own where nobody listens", async () => {
    const e = await links().client.open("file://x").catch((e: unknown) => e);
    expect(e).toBeInstanceOf(DeclinedError);
    expect(e).toMatchObject({ code: Code.noListener });
  });

  // What the end of a link means is its code, not its words. case: E9
  test("are asked for again on another link where the peer gives links up", async () => {
    for (const [code, words, fails] of [
      [Code.idle, "link idle", false],
      [Code.crossed, "", false],
      [Code.notNeeded, "zwei auf einmal", false],
      [Code.closed, "no channels for a while", true],
    ] as const) {
      let made = 0;
      const connect = async (): Promise<Link> => {
        const n = ++made;
        const l = links((r) => void (n <= 3 ? l.server.close(code, words) : r.accept()));
        return l.client;
      };
      const opening = openOn(connect, "chat://x");
      if (fails) await expect(opening).rejects.toMatchObject({ name: "GoingAwayError", code });
      else expect((await opening).name).toBe("chat://x");
      expect(made).toBe(fails ? 1 : 4);
    }
  });

  test("are asked for again where the decline overtakes the end of the link", async () => {
    let made = 0;
    const connect = async (): Promise<Link> => {
      const n = ++made;
      const l = links((r) => {
        if (n > 1) return void r.accept();
        r.decline("back in a moment", Code.closing);
        setTimeout(() => l.server.close(), 20);
      });
      return l.client;
    };
    expect((await openOn(connect, "chat://x")).name).toBe("chat://x");
    expect(made).toBe(2);
    const { client } = links((r) => r.decline("closing"));
    await expect(openOn(async () => client, "chat://x")).rejects.toMatchObject({ name: "DeclinedError", code: 0 });
  });

  test("a request can be taken back, and can then not be accepted", async () => {
    let r!: Incoming;
    const { client, server } = links((x) => (r = x));
    const c = new AbortController();
    const opening = client.open("chat://x", c.signal);
    await vi.waitFor(() => expect(r).toBeDefined());
    c.abort(new Error("changed my mind"));
    await expect(opening).rejects.toThrow("changed my mind");
    await vi.waitFor(() => expect(server.channels).toBe(0));
    expect(() => r.accept()).toThrow();
    expect(client.channels).toBe(0);
  });

  test("a decline that crosses a withdrawal leaves nothing behind", async () => {
    let r!: Incoming;
    const { client, server } = links((x) => (r = x));
    const c = new AbortController();
    const opening = client.open("chat://x", c.signal);
    await vi.waitFor(() => expect(r).toBeDefined());
    r.decline("no");
    c.abort(new Error("mine"));
    await expect(opening).rejects.toThrow();
    await vi.waitFor(() => expect([client.channels, server.channels]).toEqual([0, 0]));
  });

  test("a reset reaches reader and writer of the other side with its code", async () => {
    const { near, far, client, server } = await accepted();
    const reading = all(far);
    near.reset(300);
    const e = await reading.catch((e: unknown) => e);
    expect(e).toBeInstanceOf(ResetError);
    expect((e as ResetError).code).toBe(300);
    await expect(write(far, utf8("x"))).rejects.toBeInstanceOf(ResetError);
    await vi.waitFor(() => expect([client.channels, server.channels]).toEqual([0, 0]));
  });

  test("what was written before close arrives, though nobody reads here any more", async () => {
    const { near, far, client, server } = await accepted();
    await write(near, utf8("last words"));
    void near.close();
    expect(await all(far)).toEqual(utf8("last words"));
    await far.close();
    await vi.waitFor(() => expect([client.channels, server.channels]).toEqual([0, 0]));
  });

  test("many at once share the link fairly", async () => {
    const far: Channel[] = [];
    const { client } = links((r) => void far.push(r.accept()));
    const near = await Promise.all(Array.from({ length: 50 }, (_, i) => client.open(`chat://${i}`)));
    await Promise.all(near.map(async (c, i) => (await write(c, new Uint8Array(20_000).fill(i)), c.writable.close())));
    const got = await Promise.all(far.map(all));
    got.forEach((b, i) => expect(equal(b, new Uint8Array(20_000).fill(i))).toBe(true));
  });
});

describe("the end of a link", () => {
  test("going away is told to the other side's channels, after what arrived", async () => {
    const { near, far, client } = await accepted();
    await write(near, utf8("bye"));
    client.close(0, "done here");
    const reader = far.readable.getReader();
    expect((await reader.read()).value).toEqual(utf8("bye"));
    await expect(reader.read()).rejects.toBeInstanceOf(GoingAwayError);
  });

  test("a carrier that breaks is an error, never a clean end", async () => {
    const { far, server, ends } = await accepted();
    const reading = all(far);
    (ends[0] as unknown as { cut(e: Error): void }).cut(new Error("cable"));
    await expect(reading).rejects.toThrow("cable");
    expect((await server.closed).message).toBe("cable");
  });

  test("an orderly end of the carrier without a word is an error, too", async () => {
    const { far, ends } = await accepted();
    const reading = all(far);
    ends[0].close();
    await expect(reading).rejects.toThrow("without a word");
  });
});

/** Raw speaks to a link by frames. */
class Raw {
  readonly said: Message[] = [];
  ended = false;
  readonly far: Carrier;

  constructor(far: Carrier) {
    this.far = far;
    const s = new Splitter((id, b) => id === protocolID && this.said.push(decodeMessage(new Reader(b))));
    const sink: Sink = { data: (b) => s.push(b), ended: () => (this.ended = true), drained: () => {} };
    far.start(sink);
  }

  hello(): this {
    this.far.send(encodeMessage({ kind: "hello", version: 2, features: 0n }));
    return this;
  }
}

describe("hostile peers", () => {
  const asked = { name: "chat://x", channel: 1, answer: false, accepted: false, window: 65536, reason: "" };
  const violations: Record<string, (r: Raw) => void> = {
    "version 1": (r) => r.far.send(encodeRequest(asked)),
    "a request of our half": (r) => r.hello().far.send(encodeRequest({ ...asked, channel: 0x8000 })),
    "a request for channel 0": (r) => r.hello().far.send(encodeRequest({ ...asked, channel: 0 })),
    "a request for a channel that exists": (r) => (r.hello(), r.far.send(encodeRequest(asked)), r.far.send(encodeRequest(asked))),
    "a window that is too small": (r) => r.hello().far.send(encodeRequest({ ...asked, window: 65535 })),
    "data behind the end": (r) => (r.hello(), r.far.send(encodeRequest(asked)), r.far.send(frame(1, new Uint8Array(0))), r.far.send(frame(1, utf8("x")))),
    "two ends": (r) => (r.hello(), r.far.send(encodeRequest(asked)), r.far.send(frame(1, new Uint8Array(0))), r.far.send(frame(1, new Uint8Array(0)))),
    "credit beyond all bounds": (r) => {
      r.hello().far.send(encodeRequest(asked));
      for (let i = 0; i < 2; i++) r.far.send(encodeMessage({ kind: "credit", grants: [[1, 2 ** 31 - 1]] }));
    },
    "msgpack that is none": (r) => r.hello().far.send(frame(protocolID, new Uint8Array([0xc1]))),
    "too many late messages": (r) => {
      r.hello();
      for (let i = 0; i < 101; i++) r.far.send(frame(7, utf8("x")));
    },
  };
  for (const [name, misbehave] of Object.entries(violations)) {
    test(`${name}: the link ends and says why`, async () => {
      const [a, b] = pair();
      const link = new Link(b, "server", { request: () => {} });
      const raw = new Raw(a);
      misbehave(raw);
      expect(await link.closed).toBeInstanceOf(ProtocolError);
      await vi.waitFor(() => expect(raw.said.at(-1)).toMatchObject({ kind: "away", code: 5 }));
      expect(raw.ended).toBe(true);
    });
  }

  test("who sends past the credit loses the channel, not the link", async () => {
    const [a, b] = pair();
    let channel!: Channel;
    const link = new Link(b, "server", { request: (r) => (channel = r.accept()) });
    const raw = new Raw(a).hello();
    raw.far.send(encodeRequest({ ...asked, window: 1 << 20 }));
    for (let i = 0; i < 17; i++) raw.far.send(frame(1, new Uint8Array(16380)));
    await vi.waitFor(() => expect(raw.said).toContainEqual({ kind: "reset", channel: 1, code: 1 }));
    await expect(all(channel)).rejects.toBeInstanceOf(ResetError);
    for (let i = 0; i < 300; i++) raw.far.send(frame(1, utf8("x"))); // under way, not late
    raw.far.send(frame(1, new Uint8Array(0)));
    raw.far.send(encodeMessage({ kind: "beacon", nonce: 5n, answer: false }));
    await vi.waitFor(() => expect(raw.said).toContainEqual({ kind: "beacon", nonce: 5n, answer: true }));
    expect(link.channels).toBe(0);
    link.close();
  });

  test("257 undecided requests: the last is declined", async () => {
    const [a, b] = pair();
    let n = 0;
    const link = new Link(b, "server", { request: () => n++ });
    const raw = new Raw(a).hello();
    for (let i = 1; i <= 257; i++) raw.far.send(encodeRequest({ ...asked, channel: i }));
    raw.far.send(encodeMessage({ kind: "beacon", nonce: 5n, answer: false }));
    await vi.waitFor(() => expect(raw.said).toContainEqual({ kind: "beacon", nonce: 5n, answer: true }));
    expect(n).toBe(256);
    link.close();
  });

  test("an asker that ends and resets before the answer is decided as ever", async () => {
    const [a, b] = pair();
    let r!: Incoming;
    const link = new Link(b, "server", { request: (x) => (r = x) });
    const raw = new Raw(a).hello();
    raw.far.send(encodeRequest(asked));
    raw.far.send(frame(1, utf8("note")));
    raw.far.send(frame(1, new Uint8Array(0)));
    raw.far.send(encodeMessage({ kind: "reset", channel: 1, code: 0 }));
    await vi.waitFor(() => expect(r).toBeDefined());
    await new Promise((done) => setTimeout(done, 5));
    expect(await all(r.accept())).toEqual(utf8("note"));
    expect(link.channels).toBe(0);
    link.close();
  });
});

test("ids are used once, then again behind a beacon", async () => {
  const ids = new Ids("client", 2);
  const sent: bigint[] = [];
  const take = () => ids.take((n) => sent.push(n));
  expect([await take(), await take()]).toEqual([1, 2]);
  await expect(take()).rejects.toThrow("in use");
  ids.give(2);
  const third = take();
  expect(sent).toHaveLength(1);
  expect(ids.answered(sent[0]! + 1n)).toBe(false);
  expect(ids.answered(sent[0]!)).toBe(true);
  expect(await third).toBe(2);
});

describe("liveness", () => {
  function clock() {
    vi.useFakeTimers();
    const log: string[] = [];
    const asked: bigint[] = [];
    let waiting = 0;
    const life = new Liveness(
      {
        beacon: (n) => void asked.push(n),
        waiting: () => waiting,
        beat: (rtt, silent) => void log.push(silent ? "silent" : `beat ${Math.round(rtt)}`),
        dead: () => void log.push("dead"),
      },
      () => Date.now(),
      () => false,
    );
    return { life, log, asked, take: (n: number) => (waiting = n) };
  }

  test("a peer that vanishes is silent, then dead within three seconds", () => {
    const { life, log, asked } = clock();
    life.start();
    vi.advanceTimersByTime(40);
    life.heard();
    expect(life.answered(asked[0]!)).toBe(true);
    expect(log).toEqual(["beat 40"]);
    vi.advanceTimersByTime(1600);
    expect(log.at(-1)).toBe("silent");
    vi.advanceTimersByTime(1400);
    expect(log).toContain("dead");
    life.stop();
    vi.useRealTimers();
  });

  test("a slow path whose queue becomes shorter is alive", () => {
    const { life, log, take } = clock();
    life.start();
    for (let i = 40; i > 0; i--) {
      take(i * 1000);
      vi.advanceTimersByTime(250);
    }
    expect(log).not.toContain("dead");
    life.stop();
    vi.useRealTimers();
  });

  test("an answer that was not asked for is known as such", () => {
    const { life } = clock();
    expect(life.answered(1n)).toBe(false);
    vi.useRealTimers();
  });
});
