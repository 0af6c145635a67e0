import "fake-indexeddb/auto";
import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Bytes, hex, unhex, utf8 } from "../src/peerlink/bytes";
import { checkName, type Peer, verify, verifyChain } from "../src/peerlink/chain";
import { Tag, tlv } from "../src/peerlink/der";
import { IdentityError } from "../src/peerlink/errors";
import { Identity } from "../src/peerlink/identity";
import { parseDeviceID } from "../src/peerlink/keys";
import { load, save } from "../src/peerlink/store";
import { read } from "./vectors";

interface Vector {
  device_id: string;
  account_id: string;
  name: string;
  valid_at: string;
  chain: string[];
  purpose: string;
  message: string;
  signature: string;
}

const v = read<Vector>("identity/testdata/vector.json");
const chain = v.chain.map(unhex);
const at = Date.parse(v.valid_at);

describe("identity/testdata/vector.json", () => {
  test("chain, ids and name", async () => {
    const p = await verifyChain(chain, at);
    expect([p.device, p.account, p.name]).toEqual([v.device_id, v.account_id, v.name]);
    expect((await verifyChain([...chain].reverse(), at)).device).toBe(v.device_id);
  });
  test("signature", async () => {
    const p = await verifyChain(chain, at);
    await verify(p, v.purpose, unhex(v.message), unhex(v.signature));
    await expect(verify(p, "signal", unhex(v.message), unhex(v.signature))).rejects.toThrow(IdentityError);
    await expect(verify(p, v.purpose, utf8("else"), unhex(v.signature))).rejects.toThrow(IdentityError);
  });
});

describe("identity/testdata/chains.json", () => {
  const all = read<{ valid_at: string; chains: { name: string; taken: boolean; chain: string[] }[] }>("identity/testdata/chains.json");
  for (const c of all.chains) {
    test(c.name, async () => {
      const verified = verifyChain(c.chain.map(unhex), Date.parse(all.valid_at));
      if (c.taken) expect((await verified).device).not.toBe("");
      else await expect(verified).rejects.toThrow(IdentityError);
    });
  }
});

describe("chains that are refused", () => {
  const refused: Record<string, () => Promise<Peer>> = {
    "one certificate": () => verifyChain(chain.slice(0, 1), at),
    "four certificates": () => verifyChain([...chain, ...chain], at),
    "the same one twice": () => verifyChain([chain[0]!, chain[0]!], at),
    "before its time": () => verifyChain(chain, at - 2 * 24 * 3600_000),
    "expired": () => verifyChain(chain, at + 11 * 365 * 24 * 3600_000),
    "2 049 bytes": () => verifyChain([new Uint8Array(2049), chain[1]!], at),
    "bytes after the end": () => verifyChain([new Uint8Array([...chain[0]!, 0]), chain[1]!], at),
  };
  for (const [name, verify] of Object.entries(refused)) {
    test(name, () => expect(verify()).rejects.toThrow(IdentityError));
  }
  test("whatever bit of a certificate is turned, the chain does not verify", async () => {
    for (let i = 0; i < chain[0]!.length; i++) {
      const bad = chain[0]!.slice();
      bad[i]! ^= 1 << (i % 8);
      const p = await verifyChain([bad, chain[1]!], at).catch((e: unknown) => e);
      expect(p, `byte ${i}`).toBeInstanceOf(Error);
    }
  });
  test("another account's certificate", async () => {
    const other = await Identity.create(v.name);
    await expect(verifyChain([chain[0]!, other.chain[1]!])).rejects.toThrow(IdentityError);
  });
  test("more than four alternative names, more than sixteen extensions", async () => {
    const names = tlv(Tag.sequence, ...Array.from({ length: 5 }, () => tlv(0x82, utf8("a.example"))));
    await expect(verifyChain([await forged([extension([0x55, 0x1d, 17], names)]), chain[1]!], at)).rejects.toThrow("alternative names");
    const many = Array.from({ length: 17 }, (_, i) => extension([0x2a, i], tlv(Tag.sequence)));
    await expect(verifyChain([await forged(many), chain[1]!], at)).rejects.toThrow("extensions");
    const critical = tlv(Tag.sequence, tlv(Tag.oid, new Uint8Array([0x2a, 3])), tlv(Tag.bool, new Uint8Array([0xff])), tlv(Tag.octets));
    await expect(verifyChain([await forged([critical]), chain[1]!], at)).rejects.toThrow("critical");
  });
});

function extension(oid: number[], value: Bytes): Bytes {
  return tlv(Tag.sequence, tlv(Tag.oid, new Uint8Array(oid)), tlv(Tag.octets, value));
}

/** forged is the vector's device certificate with other extensions; its signature no longer fits. */
async function forged(extensions: Bytes[]): Promise<Bytes> {
  const { Der } = await import("../src/peerlink/der");
  const cert = new Der(chain[0]!).into(Tag.sequence);
  const tbs = cert.into(Tag.sequence);
  const parts: Bytes[] = [];
  while (!tbs.done) {
    const p = tbs.any();
    if (p.tag !== Tag.extensions) parts.push(p.raw);
  }
  const rest = [cert.any().raw, cert.any().raw];
  return tlv(Tag.sequence, tlv(Tag.sequence, ...parts, tlv(Tag.extensions, tlv(Tag.sequence, ...extensions))), ...rest);
}

describe("this browser's identity", () => {
  test("its certificates are what a strict reader of X.509 takes", async () => {
    const me = await Identity.create("Zoë’s browser");
    const [device, account] = me.chain.map((c) => new X509Certificate(c));
    expect(device!.subject).toBe("CN=Zoë’s browser");
    expect(device!.ca).toBe(false);
    expect(account!.ca).toBe(true);
    expect(device!.verify(account!.publicKey)).toBe(true);
    expect(account!.verify(account!.publicKey)).toBe(true);
    expect(device!.checkIssued(account!)).toBe(true);
    expect(Date.parse(account!.validTo)).toBeGreaterThan(Date.UTC(2050, 0, 1));
    expect(Math.max(...me.chain.map((c) => c.length))).toBeLessThan(600);
  });
  test("its keys cannot leave the browser", async () => {
    const { stored } = await Identity.create("me");
    for (const k of [stored.device.privateKey, stored.account.privateKey]) {
      expect(k.extractable).toBe(false);
      await expect(crypto.subtle.exportKey("pkcs8", k)).rejects.toThrow();
    }
  });
  test("it signs what others verify, again and again", async () => {
    const me = await Identity.create("me");
    for (let i = 0; i < 50; i++) {
      const msg = utf8(`message ${i}`);
      const sig = await me.sign("webrtc", msg);
      expect(sig.length).toBeLessThanOrEqual(72);
      await verify(me.peer, "webrtc", msg, sig);
    }
  });
  test("it is the same after it was kept, and under another name", async () => {
    const [a, b] = await Promise.all([load("first"), load("second")]);
    expect(a.device).toBe(b.device);
    const renamed = await a.renamed("new name");
    expect([renamed.device, renamed.name]).toEqual([a.device, "new name"]);
    await save(renamed);
    const again = await load("ignored");
    expect([again.device, again.name]).toEqual([a.device, "new name"]);
  });
});

test("names", () => {
  for (const good of ["a", "Zoë’s browser", "x".repeat(64), "日本", "\u2764\ufe0f", "\u845b\u{e0100}"]) checkName(good);
  const invisible = [0x34f, 0x115f, 0x1160, 0x17b4, 0x180e, 0x2065, 0x2800, 0x3164, 0xfe00, 0xfe0f, 0xffa0, 0xfff0, 0x13441, 0x16fe4, 0x1d159, 0xe0020, 0xe01ef].map((c) => "a" + String.fromCodePoint(c)); // case: S21
  for (const bad of ["", " ", " \u0301", "x".repeat(65), "é".repeat(33), "a\nb", "a\u202eb", "a\u00a0b", ...invisible]) expect(() => checkName(bad)).toThrow(IdentityError);
});

test("device ids", () => {
  const id = hex(new Uint8Array(32).fill(0xab));
  expect(parseDeviceID(` ${id.toUpperCase().slice(0, 32)}\n${id.slice(32)}`)).toBe(id);
  for (const bad of ["", id.slice(1), `${id}0`, "g".repeat(64), "0".repeat(64)]) expect(() => parseDeviceID(bad)).toThrow(IdentityError);
});
