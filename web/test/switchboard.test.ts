import { describe, expect, test } from "vitest";
import { decodeBoard, encodeBoard } from "../src/peerlink/board";
import { concat, hex, sha256, unhex, utf8 } from "../src/peerlink/bytes";
import { type Peer, verify, verifyChain } from "../src/peerlink/chain";
import { Identity } from "../src/peerlink/identity";
import { type DeviceID, statement } from "../src/peerlink/keys";
import { decodeCard, decodeLetter, encodeCard, newSealingKey, openLetter, sealLetter } from "../src/peerlink/seal";
import { read } from "./vectors";

interface Join {
  device: string;
  host: string;
  nonce: string;
  line_private_key: string;
  line_key: string;
  card: string;
  card_sha256: string;
  join_signed_bytes: string;
  join_signature: string;
}
interface Letter {
  from: string;
  to: string;
  id: string;
  body: string;
  plain: string;
  sealed: string;
}
interface Frame {
  name: string;
  wire: string;
  op: number;
  number: number;
  device: string;
  body: string;
  extra: string;
}
interface Named {
  name: string;
  wire: string;
}
interface Vectors {
  unix_milli: number;
  devices: Record<string, { device_id: DeviceID; chain: string[] }>;
  joins: Join[];
  letters: Letter[];
  frames: Frame[];
  refused: { frames: Named[]; cards: Named[]; plain_letters: Named[] };
}

const v = read<Vectors>("webrtc/switchboard/testdata/vectors.json");
const peer = (name: string): Promise<Peer> => verifyChain(v.devices[name]!.chain.map(unhex), v.unix_milli);

/** lineKey makes the pair of a line of the vectors. */
async function lineKey(j: Join): Promise<CryptoKeyPair> {
  const point = unhex(j.line_key);
  const b64 = (b: Uint8Array) => Buffer.from(b).toString("base64url");
  const pub = { kty: "EC", crv: "P-256", x: b64(point.subarray(1, 33)), y: b64(point.subarray(33)) };
  const ecdh = { name: "ECDH", namedCurve: "P-256" };
  return {
    publicKey: await crypto.subtle.importKey("jwk", pub, ecdh, true, []),
    privateKey: await crypto.subtle.importKey("jwk", { ...pub, d: b64(unhex(j.line_private_key)) }, ecdh, true, ["deriveBits"]),
  };
}

describe("webrtc/switchboard/testdata/vectors.json", () => {
  for (const f of v.frames) {
    test(`frame: ${f.name}`, () => {
      const want = { op: f.op, number: f.number, device: f.device, body: unhex(f.body), extra: unhex(f.extra) };
      expect(decodeBoard(unhex(f.wire))).toEqual(want);
      expect(decodeBoard(encodeBoard({ ...want, device: f.device as DeviceID | "" }))).toEqual(want);
    });
  }
  for (const j of v.joins) {
    test(`join of ${j.device}`, async () => {
      const card = await decodeCard(unhex(j.card), v.unix_milli);
      expect([card.peer.device, hex(card.key), hex(card.sum)]).toEqual([v.devices[j.device]!.device_id, j.line_key, j.card_sha256]);
      const said = concat(unhex(j.nonce), await sha256(unhex(j.card)), utf8(j.host));
      expect(hex(statement("switchboard-join", said))).toBe(j.join_signed_bytes);
      await verify(await peer(j.device), "switchboard-join", said, unhex(j.join_signature));
    });
  }
  for (const l of v.letters) {
    test(`letter from ${l.from} to ${l.to}`, async () => {
      const to = v.devices[l.to]!.device_id;
      const key = await lineKey(v.joins.find((j) => j.device === l.to)!);
      const opened = await openLetter(to, key, unhex(l.sealed), v.unix_milli);
      expect([opened.from.device, opened.id, hex(opened.body)]).toEqual([v.devices[l.from]!.device_id, l.id, l.body]);
      await expect(openLetter(v.devices[l.from]!.device_id, key, unhex(l.sealed), v.unix_milli)).rejects.toThrow();
      expect((await decodeLetter(to, unhex(l.plain), v.unix_milli)).id).toBe(l.id);
    });
  }
  for (const r of v.refused.frames) test(`refused frame: ${r.name}`, () => expect(() => decodeBoard(unhex(r.wire))).toThrow());
  for (const r of v.refused.cards) test(`refused card: ${r.name}`, () => expect(decodeCard(unhex(r.wire), v.unix_milli)).rejects.toThrow());
  for (const r of v.refused.plain_letters) {
    test(`refused letter: ${r.name}`, () => expect(decodeLetter(v.devices["alice"]!.device_id, unhex(r.wire), v.unix_milli)).rejects.toThrow());
  }
});

test("a letter of this library is opened by this library, by its addressee alone", async () => {
  const [a, b] = [await Identity.create("alice"), await Identity.create("bob")];
  const key = await newSealingKey();
  const card = await decodeCard(await encodeCard(b, key.publicKey));
  const sealed = await sealLetter(a, card, new Uint8Array(16), utf8("call me"));
  const l = await openLetter(b.device, key, sealed);
  expect([l.from.device, hex(l.body)]).toEqual([a.device, hex(utf8("call me"))]);
  await expect(openLetter(b.device, await newSealingKey(), sealed)).rejects.toThrow();
  await expect(openLetter(b.device, key, sealed, Date.now() + 31_000)).rejects.toThrow("clock");
  const damaged = sealed.slice();
  damaged[100]! ^= 1;
  await expect(openLetter(b.device, key, damaged)).rejects.toThrow();
});
