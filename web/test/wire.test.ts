import { describe, expect, test } from "vitest";
import { type Bytes, concat, hex, utf8 } from "../src/peerlink/bytes";
import { pack, Reader } from "../src/peerlink/packed";
import {
  badName, controlID, decodeMessage, decodeRequest, encodeMessage, encodeRequest, frame, type Message, protocolID, Splitter,
} from "../src/peerlink/wire";
import { read, wire } from "./vectors";

interface Vector {
  name: string;
  wire: string;
  channel: number;
  decodeOnly?: boolean;
  hello?: { version: number; features: number };
  beacon?: { nonce: number; answer: boolean };
  credit?: { channel: number; bytes: number }[];
  reset?: { channel: number; code: number };
  goingAway?: { code: number; reason: string; draining?: boolean };
  request?: { name: string; channel: number; answer: boolean; accepted: boolean; window: number; reason: string; code?: number };
  data?: string;
}

function split(b: Bytes, size = b.length): [number, string][] {
  const out: [number, string][] = [];
  const s = new Splitter((channel, body) => out.push([channel, hex(body)]));
  for (let at = 0; at < b.length; at += size) s.push(b.slice(at, at + size));
  return out;
}

function message(v: Vector): Exclude<Message, { kind: "unknown" }> | undefined {
  if (v.hello) return { kind: "hello", version: v.hello.version, features: BigInt(v.hello.features) };
  // 0x0123456789abcdef is more than a JSON number holds.
  if (v.beacon) return { kind: "beacon", nonce: 0x0123456789abcdefn, answer: v.beacon.answer };
  if (v.credit) return { kind: "credit", grants: v.credit.map((g) => [g.channel, g.bytes]) };
  if (v.reset) return { kind: "reset", ...v.reset };
  if (v.goingAway) return { kind: "away", draining: false, ...v.goingAway };
  return undefined;
}

describe("multiplex/testdata/vectors.json", () => {
  for (const v of read<{ vectors: Vector[] }>("multiplex/testdata/vectors.json").vectors) {
    test(v.name, () => {
      const b = wire(v.wire);
      const frames = split(b);
      expect(frames).toHaveLength(1);
      const [channel, body] = frames[0]!;
      expect(channel).toBe(v.channel);
      const m = message(v);
      if (m) {
        expect(decodeMessage(new Reader(wire(body)))).toEqual(m);
        if (!v.decodeOnly) expect(hex(encodeMessage(m))).toBe(hex(b));
      } else if (v.request) {
        expect(decodeRequest(new Reader(wire(body)))).toEqual(v.request);
        if (!v.decodeOnly) expect(hex(encodeRequest(v.request))).toBe(hex(b));
      } else {
        expect(body).toBe(v.data);
        expect(hex(frame(channel, wire(v.data!)))).toBe(hex(b));
      }
    });
  }
});

describe("Splitter", () => {
  test("does not care how the stream is cut", () => {
    const stream = concat(frame(protocolID, pack({ v: 2, f: 0 })), frame(1, utf8("hello")), frame(1, new Uint8Array(0)), frame(controlID, pack(["a", 3, false])));
    const whole = split(stream);
    expect(whole.map(([c]) => c)).toEqual([protocolID, 1, 1, controlID]);
    for (let size = 1; size < stream.length; size++) {
      const cut = split(stream, size);
      const data = cut.filter(([c, b]) => c === 1 && b !== "").map(([, b]) => b).join("");
      expect(data).toBe(hex(utf8("hello")));
      expect(cut.filter(([c]) => c !== 1)).toEqual(whole.filter(([c]) => c !== 1));
      expect(cut.filter(([c, b]) => c === 1 && b === "")).toHaveLength(1);
    }
  });
});

// fault: foreign bytes that announce more than there is.
describe("hostile messages are refused", () => {
  const refused: Record<string, string> = {
    "an array that announces 4 GiB of elements": "ddffffffff",
    "a request of two elements": "92a16101",
    "a name that announces 4 GiB": "93dbffffffff",
    "a name that is no UTF-8": "93a1ff01c2",
    "a name that is nil": "93c001c2",
    "a channel that is a float": "93a161ca3f800000c2",
    "a channel of 65536": "93a161ce00010000c2",
    "a negative channel": "93a161ffc2",
    "an extension": "94a16101c2d40000",
    "what nests too deep behind the end": "97a16101c2c200a09191919191919191919190",
  };
  for (const [name, b] of Object.entries(refused)) {
    test(name, () => expect(() => decodeRequest(new Reader(wire(b)))).toThrow());
  }
  const messages: Record<string, string> = {
    "an empty credit pair": "81a1779101",
    "credit of 0": "81a177920100",
    "credit beyond 2^31-1": "81a1779201ce80000000",
    "more than 32 pairs": `81a177dc0042${"0101".repeat(33)}`,
    "a hello of version 0": "81a17600",
    "a key of 9 bytes": "81a961616161616161616101",
    "17 keys": `de0011${"a16101".repeat(17)}`,
    "a reset without a code": "81a1789101",
    "an ignored array of 65 elements": `81a17adc0041${"c0".repeat(65)}`,
  };
  for (const [name, b] of Object.entries(messages)) {
    test(name, () => expect(() => decodeMessage(new Reader(wire(b)))).toThrow());
  }
  test("random bytes never do anything but throw or decode", () => {
    let seed = 1;
    const next = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 8;
    for (let i = 0; i < 20_000; i++) {
      const b = new Uint8Array(next() % 40).map(() => next());
      for (const decode of [decodeMessage, decodeRequest]) {
        try {
          decode(new Reader(b));
        } catch (e) {
          if ((e as Error).name !== "ProtocolError") throw e;
        }
      }
    }
  });
});

test("names of channels", () => {
  expect(badName("file://photo.jpg")).toBe("");
  for (const bad of ["", "a\nb", "x".repeat(256), "\u202egpj.exe", "\u0085"]) expect(badName(bad)).not.toBe("");
});
