// This browser as a device: a key that cannot leave it, and a chain.

import { type Bytes, random, unhex, utf8 } from "./bytes";
import { checkName, type Peer, verifyChain } from "./chain";
import { Tag, tlv, unsigned } from "./der";
import { type DeviceID, newKey, signatureAlgorithm, signRaw, spkiOf, statement } from "./keys";

/** Stored is what is kept in IndexedDB: two keys that nobody can read out, and the chain. */
export interface Stored {
  device: CryptoKeyPair;
  account: CryptoKeyPair;
  chain: Bytes[];
}

/** Certificates begin a day early, for peers whose clock is behind. */
const backdate = 24 * 3600_000;
const deviceLife = 10 * 365 * 24 * 3600_000;
const accountLife = 30 * 365 * 24 * 3600_000;

/** Identity is a device that this page can act as. */
export class Identity {
  private constructor(
    readonly stored: Stored,
    readonly peer: Peer,
  ) {}

  /** create makes a new account with one device, both called name. */
  static async create(name: string): Promise<Identity> {
    checkName(name);
    const [device, account] = [await newKey(), await newKey()];
    const accountCert = await certify(name, account, name, account.publicKey, "authority");
    return Identity.from({ device, account, chain: [await certify(name, account, name, device.publicKey, "device"), accountCert] });
  }

  /** from takes what was stored, and checks it as a peer would. */
  static async from(stored: Stored): Promise<Identity> {
    return new Identity(stored, await verifyChain(stored.chain));
  }

  get device(): DeviceID {
    return this.peer.device;
  }

  get name(): string {
    return this.peer.name;
  }

  get chain(): Bytes[] {
    return this.peer.chain;
  }

  /** renamed returns the same device under another name. */
  async renamed(name: string): Promise<Identity> {
    checkName(name);
    const { device, account } = this.stored;
    const accountCert = await certify(name, account, name, account.publicKey, "authority");
    return Identity.from({ device, account, chain: [await certify(name, account, name, device.publicKey, "device"), accountCert] });
  }

  /** sign signs msg with the device's key for one purpose. */
  sign(purpose: string, msg: Uint8Array): Promise<Bytes> {
    return signRaw(this.stored.device.privateKey, statement(purpose, msg));
  }
}

/** certify makes a certificate of key, signed by issuer. */
async function certify(issuerName: string, issuer: CryptoKeyPair, name: string, key: CryptoKey, as: "device" | "authority"): Promise<Bytes> {
  const serial = random(15);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const now = Date.now();
  const tbs = tlv(
    Tag.sequence,
    tlv(Tag.version, tlv(Tag.integer, new Uint8Array([2]))),
    unsigned(serial),
    signatureAlgorithm.p256,
    distinguished(issuerName),
    tlv(Tag.sequence, time(now - backdate), time(now + (as === "device" ? deviceLife : accountLife))),
    distinguished(name),
    await spkiOf(key),
    tlv(Tag.extensions, tlv(Tag.sequence, ...(as === "device" ? deviceExtensions : accountExtensions))),
  );
  return tlv(Tag.sequence, tbs, signatureAlgorithm.p256, tlv(Tag.bits, new Uint8Array([0]), await signRaw(issuer.privateKey, tbs)));
}

function distinguished(name: string): Bytes {
  return tlv(Tag.sequence, tlv(Tag.set, tlv(Tag.sequence, unhex("0603550403"), tlv(Tag.utf8, utf8(name)))));
}

/** time is UTCTime before 2050 and GeneralizedTime from then on (RFC 5280, 4.1.2.5). */
function time(t: number): Bytes {
  const s = new Date(t).toISOString().replace(/[-:T]/g, "").slice(0, 14) + "Z";
  return s < "2050" ? tlv(Tag.utcTime, utf8(s.slice(2))) : tlv(Tag.generalTime, utf8(s));
}

const critical = tlv(Tag.bool, new Uint8Array([0xff]));

function extension(last: number, ...value: Uint8Array[]): Bytes {
  return tlv(Tag.sequence, tlv(Tag.oid, new Uint8Array([0x55, 0x1d, last])), critical, tlv(Tag.octets, ...value));
}

// Key usage and basic constraints: a device signs, an account signs certificates.
const deviceExtensions = [extension(15, tlv(Tag.bits, new Uint8Array([7, 0x80]))), extension(19, tlv(Tag.sequence))];
const accountExtensions = [extension(15, tlv(Tag.bits, new Uint8Array([2, 0x04]))), extension(19, tlv(Tag.sequence, critical))];
