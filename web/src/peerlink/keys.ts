// Keys and signatures. A device's or an account's key is Ed25519 or ECDSA on
// P-256; this library makes P-256 keys, which every browser has.

import { type Bytes, concat, equal, hex, sha256, unhex, utf8 } from "./bytes";
import { Der, Tag, tlv, unsigned } from "./der";
import { IdentityError } from "./errors";

/** DeviceID names a device: the SHA-256 of its key's SubjectPublicKeyInfo, 64 lower-case hex digits. */
export type DeviceID = string & { readonly deviceID: unique symbol };

/** parseDeviceID reads 64 hex digits of either case, spaces around and within them left out. */
export function parseDeviceID(s: string): DeviceID {
  const id = s.replace(/\s+/g, "").toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(id)) {
    throw new IdentityError(`a device id is 64 hexadecimal digits; these are ${[...id].length} characters`);
  }
  if (/^0+$/.test(id)) throw new IdentityError("the all-zero device id names nothing");
  return id as DeviceID;
}

/** idBytes returns an id's 32 bytes. */
export function idBytes(id: DeviceID): Bytes {
  return unhex(id);
}

/** keyID hashes a SubjectPublicKeyInfo. */
export async function keyID(spki: Bytes): Promise<DeviceID> {
  return hex(await sha256(spki)) as DeviceID;
}

/** Scheme is a kind of key with its one signature algorithm. */
export type Scheme = "ed25519" | "p256";

const oidEd25519 = unhex("06032b6570");
const oidEC = unhex("06072a8648ce3d0201");
const oidP256 = unhex("06082a8648ce3d030107");
const oidECDSA = unhex("06082a8648ce3d040302");

/** The AlgorithmIdentifier of a signature by a key of the scheme. */
export const signatureAlgorithm: Record<Scheme, Bytes> = {
  ed25519: tlv(Tag.sequence, oidEd25519),
  p256: tlv(Tag.sequence, oidECDSA),
};

const algorithms = {
  ed25519: { name: "Ed25519" },
  p256: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
} as const;

/** PublicKey is a key that signatures are checked with. */
export interface PublicKey {
  scheme: Scheme;
  spki: Bytes;
  key: CryptoKey;
}

/** parseKey takes a SubjectPublicKeyInfo apart and refuses other kinds of keys before it uses them. */
export async function parseKey(spki: Bytes): Promise<PublicKey> {
  const seq = new Der(spki).into(Tag.sequence);
  const algorithm = seq.want(Tag.sequence).body;
  const bits = seq.want(Tag.bits).body;
  seq.end();
  let scheme: Scheme;
  if (equal(algorithm, oidEd25519) && bits.length === 33 && bits[0] === 0) scheme = "ed25519";
  else if (equal(algorithm, concat(oidEC, oidP256)) && bits.length === 66 && bits[0] === 0 && bits[1] === 4) scheme = "p256";
  else throw new IdentityError("a key that is neither Ed25519 nor ECDSA P-256");
  try {
    return { scheme, spki, key: await crypto.subtle.importKey("spki", spki, algorithms[scheme], true, ["verify"]) };
  } catch (e) {
    throw new IdentityError(`this browser cannot use the ${scheme} key: ${e instanceof Error ? e.message : "refused"}`);
  }
}

/** newKey makes a P-256 key whose private part cannot leave the browser. */
export async function newKey(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(algorithms.p256, false, ["sign", "verify"]);
}

/** spkiOf returns a public key's SubjectPublicKeyInfo. */
export async function spkiOf(key: CryptoKey): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.exportKey("spki", key));
}

/** signRaw signs bytes with a P-256 key; the signature is in ASN.1 form. */
export async function signRaw(key: CryptoKey, msg: Bytes): Promise<Bytes> {
  const rs = new Uint8Array(await crypto.subtle.sign(algorithms.p256, key, msg));
  return tlv(Tag.sequence, unsigned(rs.subarray(0, 32)), unsigned(rs.subarray(32)));
}

/** verifyRaw checks a signature. */
export async function verifyRaw(key: PublicKey, msg: Bytes, signature: Bytes): Promise<boolean> {
  if (key.scheme === "ed25519") {
    return signature.length === 64 && (await crypto.subtle.verify(algorithms.ed25519, key.key, signature, msg));
  }
  let rs: Bytes;
  try {
    const seq = new Der(signature).into(Tag.sequence);
    rs = concat(scalar(seq.want(Tag.integer).body), scalar(seq.want(Tag.integer).body));
    seq.end();
  } catch {
    return false;
  }
  return crypto.subtle.verify(algorithms.p256, key.key, rs, msg);
}

/** scalar makes 32 bytes of a DER integer, which must be positive and minimal. */
function scalar(b: Bytes): Bytes {
  const least = b[0] === 0 && b.length > 1 ? b.subarray(1) : b;
  const minimal = least === b || (least[0] ?? 0) >= 0x80;
  if (b.length === 0 || (b[0] ?? 0) >= 0x80 || least.length > 32 || !minimal) throw new IdentityError("not a P-256 scalar");
  return concat(new Uint8Array(32 - least.length), least);
}

/** statement is what is signed under a purpose, so that no message passes for one of another. */
export function statement(purpose: string, msg: Uint8Array): Bytes {
  return concat(utf8(`peerlink/${purpose}\0`), msg);
}
