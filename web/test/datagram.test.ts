import { describe, expect, test, vi } from "vitest";
import { type Bytes, utf8 } from "../src/peerlink/bytes";
import { type Carrier, pair, type Sink } from "../src/peerlink/carrier";
import type { Channel } from "../src/peerlink/channel";
import { Loose } from "../src/peerlink/datachannel";
import { Queue } from "../src/peerlink/datagram";
import { ResetError } from "../src/peerlink/errors";
import { Link } from "../src/peerlink/link";
import { Reader } from "../src/peerlink/packed";
import { decodeDatagram, decodeMessage, encodeDatagram, encodeMessage, type Message, protocolID, Splitter } from "../src/peerlink/wire";

async function channel(kind?: "with datagrams"): Promise<{ near: Channel; far: Channel; ends: [Carrier, Carrier] }> {
  const ends = pair("memory", kind);
  let far!: Channel;
  new Link(ends[1], "server", { request: (r) => void (far = r.accept()) });
  const near = await new Link(ends[0], "client").open("game://x");
  return { near, far, ends };
}

describe("datagrams of a channel", () => {
  test("arrive whole, both ways, beside the stream", async () => {
    const { near, far } = await channel("with datagrams");
    expect(near.maxDatagram).toBe(1098);
    for (const [from, to] of [[near, far], [far, near]] as const) {
      expect(from.sendDatagram(utf8("one"))).toBe(true);
      expect(from.sendDatagram(new Uint8Array(1098))).toBe(true);
      const r = to.datagrams.getReader();
      expect((await r.read()).value).toEqual(utf8("one"));
      expect((await r.read()).value).toEqual(new Uint8Array(1098));
    }
    const w = near.writable.getWriter();
    await w.write(utf8("stream"));
    expect((await far.readable.getReader().read()).value).toEqual(utf8("stream"));
    expect(() => near.sendDatagram(new Uint8Array(1099))).toThrow(RangeError);
    expect(() => near.sendDatagram(new Uint8Array(0))).toThrow(RangeError);
  });

  test("are none where the carrier has none", async () => {
    const { near } = await channel();
    expect(near.maxDatagram).toBe(0);
    expect(near.sendDatagram(utf8("x"))).toBe(false);
  });

  // A peer that never said that it takes them is sent none, and this side says that it does.
  test("are told of in the hello, and need the peer's word", async () => {
    for (const features of [0n, 1n, 7n]) {
      const [near, far] = pair("memory", "with datagrams");
      const said: Message[] = [];
      const s = new Splitter((id, b) => id === protocolID && said.push(decodeMessage(new Reader(b))));
      far.start({ data: (b) => s.push(b), ended: () => {}, drained: () => {} } satisfies Sink);
      const link = new Link(near, "client");
      far.send(encodeMessage({ kind: "hello", version: 2, features: 0n }).slice());
      await link.ready;
      expect(said[0]).toEqual({ kind: "hello", version: 2, features: 1n });
      expect(link.maxDatagram).toBe(0);
      link.close();
      const [a, b] = pair("memory", "with datagrams");
      const other = new Link(a, "client");
      b.send(encodeMessage({ kind: "hello", version: 2, features }));
      await other.ready;
      expect(other.maxDatagram).toBe(features & 1n ? 1098 : 0);
      other.close();
    }
  });

  test("end with the channel, and are then not sent", async () => {
    const { near, far } = await channel("with datagrams");
    near.sendDatagram(utf8("last"));
    await vi.waitFor(async () => expect((await far.datagrams.getReader().read()).value).toEqual(utf8("last")));
    const { near: n2, far: f2 } = await channel("with datagrams");
    const reading = f2.datagrams.getReader().read();
    n2.reset(300);
    await expect(reading).rejects.toBeInstanceOf(ResetError);
    expect(() => n2.sendDatagram(utf8("x"))).toThrow(ResetError);
  });

  // fault: A8: what belongs to no channel, or is too short, is dropped, however much of it.
  test("that belong to nothing are dropped", async () => {
    const { near, far, ends } = await channel("with datagrams");
    for (let i = 0; i < 1000; i++) ends[0].datagrams!.send(encodeDatagram(i % 2 ? 4711 : 0xffff, utf8("x")));
    for (const short of [[], [0], [0, 1]]) ends[0].datagrams!.send(new Uint8Array(short));
    near.sendDatagram(utf8("this one"));
    expect((await far.datagrams.getReader().read()).value).toEqual(utf8("this one"));
    expect(far.datagramsDropped).toBe(0);
  });
});

describe("the queue", () => {
  // fault: C1: a reader that stops costs 64 datagrams, or 128 KiB.
  test("keeps the newest within its bounds", async () => {
    const read = async (size: number, n: number) => {
      const q = new Queue();
      for (let i = 0; i < n; i++) q.put(new Uint8Array(size).fill(i));
      q.end(undefined);
      const got: Bytes[] = [];
      const r = q.readable.getReader();
      for (;;) {
        const { done, value } = await r.read();
        if (done) return { got, dropped: q.dropped };
        got.push(value);
      }
    };
    const small = await read(10, 100);
    expect([small.got.length, small.got[0]![0], small.dropped]).toEqual([64, 36, 36]);
    const large = await read(10_000, 50);
    expect([large.got.length, large.dropped]).toEqual([13, 37]);
  });

  test("takes nothing after its reader has left", async () => {
    const q = new Queue();
    await q.readable.cancel();
    q.put(utf8("x"));
    expect(q.dropped).toBe(1);
    q.end(undefined);
  });
});

test("a datagram comes back", () => {
  expect(decodeDatagram(encodeDatagram(513, utf8("x")))).toEqual({ channel: 513, payload: utf8("x") });
  expect(encodeDatagram(513, utf8("x"))).toEqual(new Uint8Array([2, 1, 0x78]));
});

describe("the second data channel", () => {
  // Of a browser's channel it needs four things.
  const made = () => ({ readyState: "open", bufferedAmount: 0, sent: [] as Bytes[], closed: false, onmessage: (_: { data: unknown }) => {}, send(b: Bytes) { this.sent.push(b); }, close() { this.closed = true; } });

  test("drops what would wait too long, and what comes before the proof", () => {
    const dc = made();
    const l = new Loose();
    expect(l.send(utf8("x"))).toBe(false);
    expect(l.use(dc as unknown as RTCDataChannel)).toBe(true);
    expect(l.use(made() as unknown as RTCDataChannel)).toBe(false);
    dc.onmessage({ data: utf8("early").buffer });
    const got: Bytes[] = [];
    l.take((b) => got.push(b));
    dc.onmessage({ data: utf8("x").buffer });
    dc.onmessage({ data: "text" });
    dc.onmessage({ data: new ArrayBuffer(0) });
    expect(got).toEqual([utf8("x")]);
    expect(l.send(utf8("y"))).toBe(true);
    dc.bufferedAmount = 65 << 10;
    expect(l.send(utf8("z"))).toBe(false);
    dc.bufferedAmount = 0;
    dc.readyState = "closing";
    expect(l.send(utf8("z"))).toBe(false);
    expect(dc.sent).toEqual([utf8("y")]);
  });

  // fault: A1: nothing longer than was agreed is taken.
  test("closes on a message that is too long", () => {
    const dc = made();
    const l = new Loose();
    l.use(dc as unknown as RTCDataChannel);
    l.take(() => expect.unreachable());
    dc.onmessage({ data: new ArrayBuffer(1101) });
    expect(dc.closed).toBe(true);
  });
});
