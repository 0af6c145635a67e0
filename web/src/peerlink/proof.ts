// Who is at the other end of a data channel (docs/protocol.md, "The proof").
// DTLS encrypts between two certificates that were made for one call, and who
// carries the signals could have put other ones in.

import { type Bytes, concat, cutText, random } from "./bytes";
import { maxCert, maxChain, maxSignature, type Peer, verify, verifyChain } from "./chain";
import { asError, Code, DeclinedError, IdentityError, ProtocolError } from "./errors";
import type { Identity } from "./identity";
import { type DeviceID, idBytes } from "./keys";
import { pack, Reader } from "./packed";

const helloVersion = 1;
const nonceLen = 32;
const maxHello = maxChain * (maxCert + 8) + 256;
const maxMore = 8;
const maxReason = 200;
const purpose = "webrtc";
const verdictOK = "ok";
const verdictNo = "no: ";

export type Role = "caller" | "callee";

/** Party is what one side says and shows. */
export interface Party {
  device: DeviceID;
  fingerprint: Bytes;
  nonce: Bytes;
}

/** proofStatement is what the side in a role signs. */
export function proofStatement(signer: Role, caller: Party, callee: Party): Bytes {
  return concat(
    new Uint8Array([signer === "caller" ? 1 : 2]),
    idBytes(caller.device), idBytes(callee.device), caller.fingerprint, callee.fingerprint, caller.nonce, callee.nonce,
  );
}

/** encodeHello lays a hello out. */
export function encodeHello(nonce: Bytes, chain: Bytes[]): Bytes {
  return pack([helloVersion, nonce, chain]);
}

/** decodeHello takes a stranger's hello apart. */
export function decodeHello(b: Bytes): { nonce: Bytes; chain: Bytes[] } {
  if (b.length > maxHello) throw new ProtocolError(`a hello of ${b.length} bytes, at most ${maxHello} are taken`);
  const r = new Reader(b);
  const n = r.array(3 + maxMore);
  if (n < 3) throw new ProtocolError(`a hello of ${n} elements, want 3`);
  const v = r.uint(255);
  if (v !== helloVersion) throw new ProtocolError(`a hello of version ${v}, want ${helloVersion}: the two programs are too far apart in age`);
  const nonce = r.exactly(nonceLen);
  const chain: Bytes[] = [];
  for (let i = r.array(maxChain); i > 0; i--) chain.push(r.bin(maxCert));
  r.rest(n - 3);
  return { nonce, chain };
}

/** Wire is the data channel while the proof runs. */
export interface Wire {
  send(m: Bytes | string): void;
  /** receive waits for the next message; it rejects when there will be none. */
  receive(): Promise<Bytes | string>;
}

/** Prover is what the proof of one side is made with. */
export interface Prover {
  me: Identity;
  role: Role;
  peer: DeviceID; // that must be there
  own: Bytes; // fingerprint of this side's DTLS certificate
  far: Bytes; // and of the other's, as the handshake has shown it
  /** trusted throws where the device is not wanted. */
  trusted?: (peer: Peer) => void;
}

/** prove runs the exchange and returns who is there. It ends with the wire. */
export async function prove(p: Prover, wire: Wire): Promise<Peer> {
  const mine: Party = { device: p.me.device, fingerprint: p.own, nonce: random(nonceLen) };
  const say = () => wire.send(encodeHello(mine.nonce, p.me.chain));
  // Chromium shows a callee its channel as open a moment before it sends what it
  // is given there: the caller's hello tells that it does.
  if (p.role === "caller") say();
  let peer: Peer;
  try {
    const hello = decodeHello(await binary(wire));
    peer = await verifyChain(hello.chain);
    if (peer.device !== p.peer) throw new ProtocolError("another device is at the other end");
    trust(p, peer);
    if (p.role === "callee") say();
    const theirs: Party = { device: peer.device, fingerprint: p.far, nonce: hello.nonce };
    const [caller, callee] = p.role === "caller" ? [mine, theirs] : [theirs, mine];
    wire.send(await p.me.sign(purpose, proofStatement(p.role, caller, callee)));
    const signature = await binary(wire);
    if (signature.length > maxSignature) throw new ProtocolError("a proof that is too long");
    try {
      await verify(peer, purpose, proofStatement(p.role === "caller" ? "callee" : "caller", caller, callee), signature);
    } catch {
      throw new ProofError("us");
    }
  } catch (e) {
    throw refuse(wire, asError(e));
  }
  wire.send(verdictOK);
  const said = await wire.receive();
  if (said === verdictOK) return peer;
  throw unexpected(said);
}

/** ProofError: who is at the other end of this connection is not the device. */
class ProofError extends IdentityError {
  /** by says which side has found out. */
  constructor(readonly by: "us" | "them") {
    super("the device did not prove itself at the other end of this connection: whoever carries the signals may have put other certificates into them");
  }
}

class NotTrustedError extends Error {
  override name = "NotTrustedError";
}

function trust(p: Prover, peer: Peer): void {
  try {
    p.trusted?.(peer);
  } catch (e) {
    throw new NotTrustedError(asError(e).message);
  }
}

async function binary(wire: Wire): Promise<Bytes> {
  const m = await wire.receive();
  if (typeof m === "string") throw unexpected(m);
  return m;
}

function unexpected(m: Bytes | string): Error {
  if (typeof m !== "string") return new ProtocolError("bytes before the end of the proof");
  if (!m.startsWith(verdictNo)) return new ProtocolError("an unexpected text message before the end of the proof");
  const [reason = "", digits = ""] = m.slice(verdictNo.length).split("\n");
  const code = /^[0-9]{1,10}$/.test(digits) ? Number(digits) : 0;
  if (code === Code.notProven) return new ProofError("them");
  return new DeclinedError(cutText(reason, maxReason), code);
}

/** refuse tells the peer why, in what a stranger may know. Its own refusal is not answered. */
function refuse(wire: Wire, e: Error): Error {
  if (e instanceof DeclinedError || (e instanceof ProofError && e.by === "them")) return e;
  let why = "another device or another protocol was expected";
  if (e instanceof ProofError) why = `the proof does not fit this channel\n${Code.notProven}`;
  else if (e instanceof IdentityError) why = "certificate chain refused";
  else if (e instanceof NotTrustedError) why = `not trusted\n${Code.refused}`;
  try {
    wire.send(verdictNo + why);
  } catch {
    // the connection ends in any case
  }
  return e;
}
