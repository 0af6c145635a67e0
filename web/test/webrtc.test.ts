import { describe, expect, test } from "vitest";
import { type Bytes, concat, hex, unhex, utf8 } from "../src/peerlink/bytes";
import { type Peer, verify, verifyChain } from "../src/peerlink/chain";
import { Code, DeclinedError, IdentityError } from "../src/peerlink/errors";
import { Identity } from "../src/peerlink/identity";
import { statement } from "../src/peerlink/keys";
import { decodeHello, encodeHello, type Party, proofStatement, prove, type Prover, type Wire } from "../src/peerlink/proof";
import { decodeSignal, encodeSignal, ownFingerprint } from "../src/peerlink/signal";
import { read } from "./vectors";

interface Side {
  device: string;
  fingerprint_text: string;
  fingerprint: string;
  nonce: string;
  hello: string;
  statement: string;
  signed_bytes: string;
  signature: string;
}
interface Signal {
  name: string;
  wire: string;
  kind: number;
  call: string;
  sdp?: string;
  candidates?: string[];
  taken?: string[];
  reason?: string;
  code?: number;
  max_message?: number;
}
interface Named {
  name: string;
  wire: string;
}
interface Vectors {
  unix_milli: number;
  devices: Record<string, { device_id: string; chain: string[] }>;
  signals: Signal[];
  proofs: { caller: Side; callee: Side; refusal: string }[];
  refused: { signals: Named[]; hellos: Named[] };
}

const v = read<Vectors>("webrtc/testdata/vectors.json");
const peer = (name: string): Promise<Peer> => verifyChain(v.devices[name]!.chain.map(unhex), v.unix_milli);

describe("webrtc/testdata/vectors.json", () => {
  for (const s of v.signals) {
    test(`signal: ${s.name}`, () => {
      const m = decodeSignal(unhex(s.wire));
      expect([m.kind, m.call, m.reason, m.code]).toEqual([s.kind, s.call, s.reason ?? "", s.code ?? 0]);
      expect(m.candidates).toEqual(s.taken ?? []);
      if (s.sdp) {
        expect(m.maxMessage).toBe(s.max_message);
        expect(m.fingerprint).toMatch(/^[0-9a-f]{64}$/);
        expect(hex(ownFingerprint(s.sdp))).toBe(m.fingerprint);
        expect(m.sdp).toBe(s.sdp.replace(/a=(candidate:.*|end-of-candidates)\r\n/g, ""));
      }
      const said = encodeSignal({ kind: s.kind, call: s.call, sdp: s.sdp ?? "", candidates: s.candidates ?? [], reason: s.reason ?? "", code: s.code ?? 0 });
      expect(decodeSignal(said)).toEqual(m);
    });
  }
  for (const [i, p] of v.proofs.entries()) {
    test(`proof ${i}`, async () => {
      const party = (s: Side): Party => ({ device: v.devices[s.device]!.device_id as Party["device"], fingerprint: unhex(s.fingerprint), nonce: unhex(s.nonce) });
      for (const [role, s] of [["caller", p.caller], ["callee", p.callee]] as const) {
        const st = proofStatement(role, party(p.caller), party(p.callee));
        expect(hex(st)).toBe(s.statement);
        expect(hex(statement("webrtc", st))).toBe(s.signed_bytes);
        await verify(await peer(s.device), "webrtc", st, unhex(s.signature));
        const hello = decodeHello(unhex(s.hello));
        expect(hex(hello.nonce)).toBe(s.nonce);
        expect(hello.chain.map(hex)).toEqual(v.devices[s.device]!.chain);
        expect(decodeHello(encodeHello(hello.nonce, hello.chain))).toEqual(hello);
        expect(hex(ownFingerprint(`a=fingerprint:sha-256 ${s.fingerprint_text}\r\n`))).toBe(s.fingerprint);
      }
    });
  }
  for (const r of v.refused.signals) test(`refused signal: ${r.name}`, () => expect(() => decodeSignal(unhex(r.wire))).toThrow());
  for (const r of v.refused.hellos) {
    test(`refused hello: ${r.name}`, () =>
      expect((async () => verifyChain(decodeHello(unhex(r.wire)).chain, v.unix_milli))()).rejects.toThrow());
  }
});

test("candidates that may be used", () => {
  const c = (address: string, port = 9) => `candidate:1 1 udp 1 ${address} ${port} typ host`;
  const used = (on: Parameters<typeof decodeSignal>[1], ...cs: string[]) =>
    decodeSignal(encodeSignal({ kind: 19, call: "1d".repeat(16), candidates: cs }), on).candidates.length;
  expect(used({}, c("192.0.2.1"), c("10.0.0.1"), c("2001:db8::1"), c("fe80::1"))).toBe(4);
  expect(used({}, c("0.0.0.0"), c("224.0.0.1"), c("255.255.255.255"), c("::"), c("ff02::1"), c("127.0.0.1"), c("::1"), c("192.0.2.1", 0), c("x.example"), c("256.0.0.1"))).toBe(0);
  expect(used({}, c("::ffff:127.0.0.1"), c("0:0:0:0:0:0:0:1"), c("::ffff:0.0.0.0"))).toBe(0);
  expect(used({ loopback: true, names: true }, c("127.0.0.1"), c("0fd95bd7-7a5e-4a3b-8f0c-1f1e2b3c4d5e.local"))).toBe(2);
  expect(used({ names: true }, c("evil.local"), c("a.b.local"))).toBe(0);
});

/** wires are two ends of a data channel in memory; between may change what is said. */
function wires(between: (m: Bytes | string, from: number) => Bytes | string = (m) => m): [Wire, Wire] {
  const queues: (Bytes | string)[][] = [[], []];
  const waiting: (((m: Bytes | string) => void) | undefined)[] = [undefined, undefined];
  const end = (i: number): Wire => ({
    send: (m) => {
      const out = between(m, i);
      const wake = waiting[1 - i];
      waiting[1 - i] = undefined;
      if (wake) wake(out);
      else queues[1 - i]!.push(out);
    },
    receive: () => new Promise((resolve) => {
      const m = queues[i]!.shift();
      if (m !== undefined) resolve(m);
      else waiting[i] = resolve;
    }),
  });
  return [end(0), end(1)];
}

describe("the proof", () => {
  const print = (n: number) => new Uint8Array(32).fill(n);
  async function provers(): Promise<[Prover, Prover]> {
    const [a, b] = [await Identity.create("alice"), await Identity.create("bob")];
    return [
      { me: a, role: "caller", peer: b.device, own: print(1), far: print(2) },
      { me: b, role: "callee", peer: a.device, own: print(2), far: print(1) },
    ];
  }
  const both = (p: [Prover, Prover], w = wires()) => Promise.allSettled([prove(p[0], w[0]), prove(p[1], w[1])]);

  test("tells each who is there", async () => {
    const p = await provers();
    const [a, b] = await both(p);
    expect(a).toMatchObject({ status: "fulfilled", value: { device: p[1].me.device, name: "bob" } });
    expect(b).toMatchObject({ status: "fulfilled", value: { device: p[0].me.device, name: "alice" } });
  });
  // A callee's channel may drop what is sent before the first message has come.
  test("the callee says nothing before the caller", async () => {
    const p = await provers();
    let heard = false;
    const results = await both([p[1], p[0]], wires((m, from) => {
      if (from === 1) heard = true;
      else if (!heard) return "lost";
      return m;
    }));
    expect(results.map((r) => r.status)).toEqual(["fulfilled", "fulfilled"]);
  });
  // fault: a signalling server that swaps fingerprints sits in the middle of two DTLS handshakes.
  test("fails where somebody stands between with other certificates", async () => {
    const p = await provers();
    p[0].far = print(7);
    p[1].far = print(8);
    for (const r of await both(p)) {
      expect(r.status).toBe("rejected");
      expect((r as PromiseRejectedResult).reason).toBeInstanceOf(IdentityError);
      expect(String((r as PromiseRejectedResult).reason)).toContain("may have put other certificates");
    }
  });
  test("fails with another device's hello", async () => {
    const p = await provers();
    p[1].me = await Identity.create("mallory");
    const [a] = await both(p);
    expect(a.status).toBe("rejected");
  });
  test("fails where the same role is claimed twice, as in a reflection", async () => {
    const [a] = await provers();
    const said: (Bytes | string)[] = [];
    const mirror: Wire = { send: (m) => void said.push(m), receive: async () => said.shift() ?? "" };
    await expect(prove({ ...a, peer: a.me.device, far: a.own }, mirror)).rejects.toThrow(IdentityError);
  });
  test("a damaged signature is refused", async () => {
    const p = await provers();
    let n = 0;
    const results = await both(p, wires((m, from) => {
      if (typeof m === "string" || from !== 0 || ++n !== 2) return m;
      return concat(m.subarray(0, -1), new Uint8Array([m.at(-1)! ^ 1]));
    }));
    expect(results[1].status).toBe("rejected");
  });
  test("who is not trusted is told so", async () => {
    const p = await provers();
    p[1].trusted = () => {
      throw new Error("blocked here, for private reasons");
    };
    const [a] = await both(p);
    expect((a as PromiseRejectedResult).reason).toBeInstanceOf(DeclinedError);
    expect((a as PromiseRejectedResult).reason).toMatchObject({ reason: "not trusted", code: Code.refused });
  });
  test("a refusal means its code", async () => {
    for (const [said, want] of [
      [v.proofs[0]!.refusal, { name: "DeclinedError", reason: "not trusted", code: Code.refused }],
      ["no: of an older build", { name: "DeclinedError", reason: "of an older build", code: 0 }],
      ["no: x\n-6", { name: "DeclinedError", reason: "x", code: 0 }],
      [`no: words\n${Code.notProven}`, { name: "IdentityError" }],
    ] as const) {
      const [a] = await provers();
      await expect(prove(a, { send: () => {}, receive: async () => said })).rejects.toMatchObject(want);
    }
  });
  test("bytes before the verdict are refused", async () => {
    const p = await provers();
    const [a] = await both(p, wires((m, from) => (from === 1 && m === "ok" ? utf8("early") : m)));
    expect(a.status).toBe("rejected");
  });
});
