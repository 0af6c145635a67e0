// Certificate chains that a stranger shows (docs/protocol.md, "Identities").
// Sizes and counts are checked before a byte is parsed, key types before a
// signature is verified, and exactly the signatures that we define are.

import { type Bytes, equal, hex, invisible, text, utf8 } from "./bytes";
import { Der, Tag } from "./der";
import { asError, IdentityError } from "./errors";
import { type DeviceID, keyID, parseKey, type PublicKey, signatureAlgorithm, statement, verifyRaw } from "./keys";

export const maxChain = 3;
export const maxCert = 2048;
export const maxSignature = 72;
const maxNameLen = 64;
const maxSANs = 4;
const maxExtensions = 16;

/** Peer is a device whose chain was verified. A signature must still show that it is there. */
export interface Peer {
  device: DeviceID;
  account: string;
  /** What the device calls itself; not unique and not to be believed. */
  name: string;
  key: PublicKey;
  chain: Bytes[];
}

interface Certificate {
  tbs: Bytes;
  subject: Bytes;
  issuer: Bytes;
  name: string;
  notBefore: number; // Unix milliseconds
  notAfter: number;
  key: PublicKey;
  algorithm: Bytes;
  signature: Bytes;
  isCA: boolean;
  maySign: boolean;
  /** Why the certificate may not stand so many places above the device's; "" if it may. */
  unfit: (below: number) => string;
}

/** verifyChain returns whose chain it is, or throws an IdentityError. now is in Unix milliseconds. */
export async function verifyChain(der: Bytes[], now: number = Date.now()): Promise<Peer> {
  if (der.length < 2 || der.length > maxChain) {
    throw new IdentityError(`${der.length} certificates, want 2 (device, account) or 3 (and an authority)`);
  }
  const parsed: Certificate[] = [];
  for (const [i, b] of der.entries()) {
    try {
      parsed.push(await parse(b));
    } catch (e) {
      throw new IdentityError(`certificate ${i}: ${asError(e).message}`);
    }
  }
  const { certs, order } = await arrange(parsed);
  for (const [i, c] of certs.entries()) await check(c, certs[Math.min(i + 1, certs.length - 1)]!, i === 0 ? "device" : "account", now);
  for (const [below, c] of certs.entries()) {
    const why = c.unfit(below);
    if (why !== "") throw new IdentityError(`certificate of ${JSON.stringify(c.name)}: ${why}`);
  }
  const [device, account] = [certs[0]!, certs[1]!];
  if (certs[2] && equal(certs[2].key.spki, account.key.spki)) throw new IdentityError("the account is its own authority");
  return {
    device: await keyID(device.key.spki),
    account: await keyID(account.key.spki),
    name: device.name,
    key: device.key,
    chain: order.map((i) => der[i]!.slice()),
  };
}

/** verify checks a signature that the peer's device made for a purpose. */
export async function verify(peer: Peer, purpose: string, msg: Uint8Array, signature: Bytes): Promise<void> {
  if (signature.length > maxSignature || !(await verifyRaw(peer.key, statement(purpose, msg), signature))) {
    throw new IdentityError(`signature does not verify (${purpose})`);
  }
}

/** checkName throws unless s has 1 to 64 bytes of visible UTF-8. */
export function checkName(s: string): void {
  const size = utf8(s).length;
  if (size < 1 || size > maxNameLen) throw new IdentityError(`a name has 1 to ${maxNameLen} bytes, this one ${size}`);
  if (!/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$/u.test(s) || s.search(invisible) >= 0) throw new IdentityError("the name has an unprintable or invisible character");
  if (/^[\p{M} ]*$/u.test(s)) throw new IdentityError("the name shows nothing");
}

async function parse(b: Bytes): Promise<Certificate> {
  if (b.length > maxCert) throw new IdentityError(`${b.length} bytes, at most ${maxCert} are taken`);
  const all = new Der(b);
  const cert = all.into(Tag.sequence);
  all.end();
  const tbs = cert.want(Tag.sequence);
  const algorithm = cert.want(Tag.sequence).raw;
  const signature = cert.want(Tag.bits).body;
  cert.end();
  if (signature[0] !== 0) throw new IdentityError("a signature of odd bits");
  const d = new Der(tbs.body);
  if (!equal(d.want(Tag.version).body, new Uint8Array([Tag.integer, 1, 2]))) throw new IdentityError("not of X.509 version 3");
  d.want(Tag.integer);
  if (!equal(d.want(Tag.sequence).raw, algorithm)) throw new IdentityError("two signature algorithms");
  const issuer = d.want(Tag.sequence).raw;
  const validity = d.into(Tag.sequence);
  const notBefore = time(validity.any());
  const notAfter = time(validity.any());
  const subject = d.want(Tag.sequence);
  const key = await parseKey(d.want(Tag.sequence).raw);
  const extensions = d.done ? { isCA: false, maySign: false, unfit: () => "" } : readExtensions(d.into(Tag.extensions));
  d.end();
  return { tbs: tbs.raw, subject: subject.raw, issuer, name: commonName(subject.body), notBefore, notAfter, key, algorithm, signature: signature.subarray(1), ...extensions };
}

function time(v: { tag: number; body: Bytes }): number {
  const s = text(v.body);
  const m = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(s);
  const long = v.tag === Tag.generalTime;
  if (!m || (!long && v.tag !== Tag.utcTime) || m[1]!.length !== (long ? 4 : 2)) throw new IdentityError(`time ${JSON.stringify(s.slice(0, 20))}`);
  const n = m.slice(1).map(Number);
  const year = long ? n[0]! : n[0]! < 50 ? 2000 + n[0]! : 1900 + n[0]!;
  return Date.UTC(year, n[1]! - 1, n[2], n[3], n[4], n[5]);
}

const oidCommonName = new Uint8Array([0x55, 0x04, 0x03]);

function commonName(rdns: Bytes): string {
  let name = "";
  for (const d = new Der(rdns); !d.done; ) {
    for (const set = d.into(Tag.set); !set.done; ) {
      const attribute = set.into(Tag.sequence);
      const oid = attribute.want(Tag.oid).body;
      const v = attribute.any();
      if (equal(oid, oidCommonName) && (v.tag === Tag.utf8 || v.tag === Tag.printable)) name = text(v.body);
    }
  }
  return name;
}

/** The extensions of id-ce (2.5.29) that are applied here. Others, name constraints among them, must not be critical. */
const keyUsage = 15;
const alternativeNames = 17;
const basicConstraints = 19;
const extendedKeyUsage = 37;

function readExtensions(outer: Der): Pick<Certificate, "isCA" | "maySign" | "unfit"> {
  const list = outer.into(Tag.sequence);
  outer.end();
  const seen = new Set<string>();
  const limits: ((below: number) => string)[] = []; // of what is critical
  let [isCA, maySign] = [false, false];
  for (; !list.done; ) {
    const e = list.into(Tag.sequence);
    const oid = e.want(Tag.oid).body;
    const critical = e.peek() === Tag.bool && e.any().body[0] === 0xff;
    const value = e.want(Tag.octets).body;
    e.end();
    const name = [...oid].join(".");
    if (seen.has(name)) throw new IdentityError("an extension given twice");
    seen.add(name);
    if (seen.size > maxExtensions) throw new IdentityError(`more than ${maxExtensions} extensions`);
    const ce = oid.length === 3 && oid[0] === 0x55 && oid[1] === 0x1d ? oid[2]! : 0;
    let limit: ((below: number) => string) | undefined;
    switch (ce) {
      case basicConstraints: {
        const { ca, most } = readConstraints(value);
        isCA = ca;
        limit = (below) => (ca && below - 1 > most ? `at most ${most} authorities may be below it` : "");
        break;
      }
      case keyUsage: {
        const bits = new Der(value).want(Tag.bits).body[1] ?? 0;
        maySign = (bits & 0x04) !== 0;
        limit = (below) => (below === 0 && (bits & 0x80) === 0 ? "its key may not sign" : "");
        break;
      }
      case extendedKeyUsage:
        limit = () => (forTLS(value) ? "" : "not for both ends of TLS");
        break;
      case alternativeNames:
        countNames(value);
    }
    if (critical && !limit) throw new IdentityError("unknown critical extension");
    if (critical) limits.push(limit!);
  }
  return { isCA, maySign, unfit: (below) => limits.map((l) => l(below)).find((why) => why !== "") ?? "" };
}

function readConstraints(value: Bytes): { ca: boolean; most: number } {
  const seq = new Der(value).into(Tag.sequence);
  const ca = seq.peek() === Tag.bool && seq.any().body[0] === 0xff;
  const most = seq.done ? Infinity : seq.want(Tag.integer).body.reduce((n, b) => n * 256 + b, 0);
  return { ca, most };
}

/** forTLS reports whether an extended key usage is for both ends of TLS, or for anything. */
function forTLS(value: Bytes): boolean {
  const uses = new Set<string>();
  for (const seq = new Der(value).into(Tag.sequence); !seq.done; ) uses.add(hex(seq.want(Tag.oid).body));
  return uses.has("551d2500") || (uses.has("2b06010505070301") && uses.has("2b06010505070302"));
}

function countNames(value: Bytes): void {
  let n = 0;
  for (const seq = new Der(value).into(Tag.sequence); !seq.done; n++) seq.any();
  if (n > maxSANs) throw new IdentityError(`${n} alternative names, at most ${maxSANs} are taken`);
}

/** arrange puts the device first and each issuer after what it signed, by names; signatures are checked afterwards. */
async function arrange(certs: Certificate[]): Promise<{ certs: Certificate[]; order: number[] }> {
  const first = certs.findIndex((c) => !c.isCA);
  if (first < 0) throw new IdentityError("no device certificate: each claims to be an authority");
  const order = [first];
  const rest = certs.map((_, i) => i).filter((i) => i !== first);
  while (rest.length > 0) {
    const last = certs[order.at(-1)!]!;
    const named = rest.filter((i) => equal(certs[i]!.subject, last.issuer));
    let next = named[0];
    // An account may bear its authority's name; a signature tells them apart.
    if (named.length === 2 && !(await signed(last, certs[named[0]!]!))) next = named[1];
    if (next === undefined) throw new IdentityError("an issuer is not in the chain");
    order.push(next);
    rest.splice(rest.indexOf(next), 1);
  }
  return { certs: order.map((i) => certs[i]!), order };
}

function signed(c: Certificate, issuer: Certificate): Promise<boolean> {
  return verifyRaw(issuer.key, c.tbs, c.signature);
}

async function check(c: Certificate, issuer: Certificate, role: "device" | "account", now: number): Promise<void> {
  const refuse = (why: string): never => {
    throw new IdentityError(`${role} certificate: ${why}`);
  };
  const day = (t: number) => new Date(t).toISOString();
  if (c.isCA !== (role === "account")) refuse(`authority flag is ${c.isCA}`);
  if (c.isCA && !c.maySign) refuse("may not sign certificates");
  if (now < c.notBefore) refuse(`not valid before ${day(c.notBefore)}, and here it is ${day(now)} (is a clock wrong?)`);
  if (now > c.notAfter) refuse(`expired at ${day(c.notAfter)}, and here it is ${day(now)} (is a clock wrong?)`);
  if (!equal(c.issuer, issuer.subject)) refuse("issued by another name than the next one's");
  if (!equal(c.algorithm, signatureAlgorithm[issuer.key.scheme])) refuse("signed with another algorithm than its issuer's key has");
  checkName(c.name);
  if (!(await signed(c, issuer))) refuse("the signature does not verify");
}
