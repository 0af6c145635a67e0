// Cards and letters of a switchboard (docs/protocol.md, "The switchboard").

import { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } from "@hpke/core";
import { type Bytes, concat, equal, hex, sha256, utf8 } from "./bytes";
import { maxCert, maxChain, maxSignature, type Peer, verify, verifyChain } from "./chain";
import { IdentityError, ProtocolError } from "./errors";
import type { Identity } from "./identity";
import { type DeviceID, idBytes } from "./keys";
import { pack, Reader, uint } from "./packed";

/** The longest message of a letter, and of a sealed letter, in bytes. */
export const maxBody = 12 << 10;
export const maxSealed = 24 << 10;
const keyLen = 65;
const letterIDLen = 16;
const statementVersion = 1;
const cardPurpose = "switchboard-card";
const letterPurpose = "switchboard";
const chainRoom = maxChain * (maxCert + 3) + 64;
const maxCard = chainRoom + keyLen + maxSignature + 64;
const maxPlain = chainRoom + maxBody + maxSignature + 256;
const maxUnixMilli = 2 ** 48;
const moreParts = 8;
const cardLife = 24 * 3600_000;
const cardMost = 25 * 3600_000;
/** How far a letter's time may be from this clock, in milliseconds. */
const freshness = 30_000;

const suite = new CipherSuite({ kem: new DhkemP256HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

/** newSealingKey makes the key pair of one line. */
export function newSealingKey(): Promise<CryptoKeyPair> {
  return suite.kem.generateKeyPair();
}

async function signed(me: Identity, purpose: string, ...values: unknown[]): Promise<Bytes> {
  const statement = pack([statementVersion, me.chain, ...values]);
  return pack([statement, await me.sign(purpose, statement)]);
}

/** Unproven is a signed statement that is not believed yet. */
interface Unproven {
  statement: Bytes;
  signature: Bytes;
  chain: Bytes[];
  r: Reader; // behind the chain
  more: number; // elements behind those known
}

function take(b: Bytes, most: number, want: number): Unproven {
  if (b.length > most) throw new ProtocolError(`${b.length} bytes, at most ${most} are taken`);
  const outer = new Reader(b);
  if (outer.array(2) !== 2) throw new ProtocolError("a signed statement has 2 elements");
  const statement = outer.bin(most);
  const signature = outer.bin(maxSignature);
  outer.rest(0);
  const r = new Reader(statement);
  const n = r.array(want + moreParts);
  if (n < want) throw new ProtocolError(`a statement of ${n} elements, want ${want}`);
  const v = r.uint(255);
  if (v !== statementVersion) throw new ProtocolError(`a statement of version ${v}, want ${statementVersion}`);
  const chain: Bytes[] = [];
  for (let i = r.array(maxChain); i > 0; i--) chain.push(r.bin(maxCert));
  return { statement, signature, chain, r, more: n - want };
}

async function prove(u: Unproven, purpose: string, now: number): Promise<Peer> {
  const peer = await verifyChain(u.chain, now);
  await verify(peer, purpose, u.statement, u.signature);
  return peer;
}

/** Card is what a device shows on a line: the key that letters to it are sealed with. */
export interface Card {
  peer: Peer;
  key: Bytes;
  sum: Bytes;
}

/** encodeCard makes this device's card for a line. */
export async function encodeCard(me: Identity, key: CryptoKey, now: number = Date.now()): Promise<Bytes> {
  const point = new Uint8Array(await suite.kem.serializePublicKey(key));
  return signed(me, cardPurpose, point, uint(now + cardLife));
}

/** decodeCard checks a card that a switchboard gave. */
export async function decodeCard(b: Bytes, now: number = Date.now()): Promise<Card> {
  const u = take(b, maxCard, 4);
  const key = u.r.exactly(keyLen);
  const left = u.r.uint(maxUnixMilli) - now;
  u.r.rest(u.more);
  if (left < 0 || left > cardMost) throw new ProtocolError("a card that is out of date: one of the two clocks is wrong");
  return { peer: await prove(u, cardPurpose, now), key, sum: await sha256(b) };
}

/** Letter is a message from a device that is proven. */
export interface Letter {
  from: Peer;
  id: string;
  body: Bytes;
}

function info(to: DeviceID): Bytes {
  return concat(utf8("peerlink/switchboard/1\0"), idBytes(to));
}

/** sealLetter makes what only the holder of the card's key can read. */
export async function sealLetter(me: Identity, to: Card, id: Bytes, body: Bytes, now: number = Date.now()): Promise<Bytes> {
  if (body.length > maxBody) throw new RangeError(`the message has ${body.length} bytes, at most ${maxBody} can be sent`);
  const plain = await signed(me, letterPurpose, idBytes(to.peer.device), id, uint(now), body);
  const recipientPublicKey = await suite.kem.deserializePublicKey(to.key);
  const { enc, ct } = await suite.seal({ recipientPublicKey, info: info(to.peer.device) }, plain);
  return concat(new Uint8Array(enc), new Uint8Array(ct));
}

/** openLetter reads a letter to this device and tells who wrote it. */
export async function openLetter(me: DeviceID, key: CryptoKeyPair, sealed: Bytes, now: number = Date.now()): Promise<Letter> {
  if (sealed.length > maxSealed || sealed.length < keyLen) throw new ProtocolError(`a letter of ${sealed.length} bytes`);
  let plain: ArrayBuffer;
  try {
    plain = await suite.open({ recipientKey: key, enc: sealed.slice(0, keyLen), info: info(me) }, sealed.slice(keyLen));
  } catch {
    throw new IdentityError("a letter that is not sealed to this line");
  }
  return decodeLetter(me, new Uint8Array(plain), now);
}

/** decodeLetter reads an opened letter. */
export async function decodeLetter(me: DeviceID, plain: Bytes, now: number = Date.now()): Promise<Letter> {
  const u = take(plain, maxPlain, 6);
  const to = u.r.exactly(32);
  const id = u.r.exactly(letterIDLen);
  const at = u.r.uint(maxUnixMilli);
  const body = u.r.bin(maxBody);
  u.r.rest(u.more);
  if (!equal(to, idBytes(me))) throw new ProtocolError("a letter for another device");
  if (Math.abs(now - at) > freshness) {
    throw new ProtocolError(`a letter that is ${Math.round((now - at) / 1000)} s off: one of the two clocks is wrong, or it is a replay`);
  }
  return { from: await prove(u, letterPurpose, now), id: hex(id), body };
}
