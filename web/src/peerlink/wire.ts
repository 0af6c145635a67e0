// The wire inside a link (docs/protocol.md): frames, and the messages of the
// CONTROL and PROTOCOL channels.
//
//   length:uint16 | channel:uint16 | body[length]

import { type Bytes, concat, cutText, utf8 } from "./bytes";
import { ProtocolError } from "./errors";
import { pack, Reader, uint } from "./packed";

export const headerLen = 4;
/** The longest body that is sent: header and body fill one record of 16 384 bytes. */
export const maxSend = 16380;
export const controlID = 0x0000;
export const protocolID = 0xffff;
export const lastClientID = 0x7fff;
export const version = 2;
/** What an asking side may send before the answer. */
export const earlyCredit = 65536;
export const maxWindow = 2 ** 31 - 1;
export const maxReason = 255;
export const maxName = 255;
const maxGrants = 32;
const maxKeys = 16;
const maxKeyLen = 8;

/** frame lays one frame out. */
export function frame(channel: number, body: Uint8Array): Bytes {
  const out = new Uint8Array(headerLen + body.length);
  const v = new DataView(out.buffer);
  v.setUint16(0, body.length);
  v.setUint16(2, channel);
  out.set(body, headerLen);
  return out;
}

/** Request asks for a channel or answers. */
export interface Request {
  name: string;
  channel: number;
  answer: boolean;
  accepted: boolean;
  window: number;
  reason: string;
  /** Of a decline: what it means to a program. None, or 0: the reason is all there is. */
  code?: number;
}

/** encodeRequest returns the frame of a request or an answer. */
export function encodeRequest(q: Request): Bytes {
  return frame(controlID, pack([q.name, q.channel, q.answer, q.accepted, q.window, cutText(q.reason, maxReason), ...(q.code ? [q.code] : [])]));
}

/** decodeRequest reads one request; further ones may follow in r. */
export function decodeRequest(r: Reader): Request {
  const n = r.array(maxKeys);
  if (n < 3) throw new ProtocolError(`a request of ${n} elements, want 3`);
  const q: Request = { name: r.str(r.left), channel: r.uint(0xffff), answer: r.bool(), accepted: false, window: 0, reason: "" };
  if (n > 3) q.accepted = r.bool();
  if (n > 4) q.window = r.uint(0xffffffff);
  if (n > 5) q.reason = r.str(r.left);
  if (utf8(q.reason).length > maxReason) throw new ProtocolError(`a reason of more than ${maxReason} bytes`);
  const declined = q.answer && !q.accepted;
  if (n > 6 && declined) q.code = r.uint(0xffffffff);
  for (let i = declined ? 7 : 6; i < n; i++) r.skip();
  return q;
}

/** badName tells why a channel may not have this name; "" if it may. */
export function badName(name: string): string {
  const size = utf8(name).length;
  if (size < 1 || size > maxName) return `a channel's name has 1 to ${maxName} bytes`;
  if (/[\p{Cc}\p{Bidi_Control}]/u.test(name)) return "a channel's name has no control characters";
  return "";
}

/** Message is what PROTOCOL carries. */
export type Message =
  | { kind: "hello"; version: number; features: bigint }
  | { kind: "beacon"; nonce: bigint; answer: boolean }
  | { kind: "credit"; grants: [channel: number, bytes: number][] }
  | { kind: "reset"; channel: number; code: number }
  | { kind: "away"; code: number; reason: string; draining: boolean }
  | { kind: "unknown" };

/** encodeMessage returns the frame of a message. */
export function encodeMessage(m: Exclude<Message, { kind: "unknown" }>): Bytes {
  return frame(protocolID, pack(body(m)));
}

function body(m: Exclude<Message, { kind: "unknown" }>): Record<string, unknown> {
  switch (m.kind) {
    case "hello":
      return { v: m.version, f: uint(m.features) };
    case "beacon":
      return { p: uint(m.nonce), r: m.answer };
    case "credit":
      return { w: m.grants.flat() };
    case "reset":
      return { x: [m.channel, m.code] };
    case "away":
      return { g: [m.code, cutText(m.reason, maxReason)], ...(m.draining ? { d: true } : {}) };
  }
}

/** decodeMessage reads one message; further ones may follow in r. */
export function decodeMessage(r: Reader): Message {
  const n = r.map(maxKeys);
  let m: Message = { kind: "unknown" };
  for (let i = 0; i < n; i++) {
    const key = r.str(maxKeyLen);
    if (i === 0) m = first(r, key);
    else if (m.kind === "hello" && key === "f") m.features = r.big(2n ** 64n - 1n);
    else if (m.kind === "beacon" && key === "r") m.answer = r.bool();
    else if (m.kind === "away" && key === "d") m.draining = r.bool();
    else r.skip();
  }
  return m;
}

function first(r: Reader, key: string): Message {
  switch (key) {
    case "v":
      return { kind: "hello", version: atLeast(1, r.uint(65536)), features: 0n };
    case "p":
      return { kind: "beacon", nonce: r.big(2n ** 64n - 1n), answer: false };
    case "w":
      return { kind: "credit", grants: grants(r) };
    case "x": {
      const n = r.array(maxKeys);
      if (n < 2) throw new ProtocolError("a reset without a code");
      const m: Message = { kind: "reset", channel: r.uint(0xffff), code: r.uint(0xffffffff) };
      for (let i = 2; i < n; i++) r.skip();
      return m;
    }
    case "g": {
      const n = r.array(maxKeys);
      if (n < 2) throw new ProtocolError("a going away without a reason");
      const m: Message = { kind: "away", code: r.uint(0xffffffff), reason: r.str(maxReason), draining: false };
      for (let i = 2; i < n; i++) r.skip();
      return m;
    }
  }
  r.skip();
  return { kind: "unknown" };
}

function grants(r: Reader): [number, number][] {
  const n = r.array(2 * maxGrants);
  if (n % 2 !== 0) throw new ProtocolError("credit with half a pair");
  const out: [number, number][] = [];
  for (let i = 0; i < n; i += 2) out.push([r.uint(0xffff), atLeast(1, r.uint(maxWindow))]);
  return out;
}

function atLeast(least: number, v: number): number {
  if (v < least) throw new ProtocolError(`${v}, want at least ${least}`);
  return v;
}

/** featureDatagrams is the bit of a hello's features that says: this side takes the carrier's datagrams. */
export const featureDatagrams = 1n;
const datagramHeader = 2;

/** datagramRoom is how many bytes of a channel fit a carrier's datagram. */
export function datagramRoom(most: number): number {
  return Math.max(most - datagramHeader, 0);
}

/** encodeDatagram lays out channel:uint16 | payload. */
export function encodeDatagram(channel: number, payload: Uint8Array): Bytes {
  const out = new Uint8Array(datagramHeader + payload.length);
  new DataView(out.buffer).setUint16(0, channel);
  out.set(payload, datagramHeader);
  return out;
}

/** decodeDatagram takes one apart; undefined where it has no payload. */
export function decodeDatagram(b: Bytes): { channel: number; payload: Bytes } | undefined {
  if (b.length <= datagramHeader) return undefined;
  return { channel: new DataView(b.buffer, b.byteOffset).getUint16(0), payload: b.subarray(datagramHeader) };
}

/**
 * Splitter cuts a stream into frames, however it arrives. Data frames are given
 * as they come, in pieces; CONTROL and PROTOCOL ones when they are whole. It
 * holds at most one frame.
 */
export class Splitter {
  #kept: Uint8Array = new Uint8Array(0);
  #channel = 0;
  #left = 0; // of a data frame under way

  /** each is called for every frame of messages, every piece of data, and with empty bytes for an end. */
  constructor(private readonly each: (channel: number, body: Bytes) => void) {}

  /** push takes the next bytes of the stream. It does not keep b. */
  push(b: Bytes): void {
    let data: Bytes = this.#kept.length > 0 ? concat(this.#kept, b) : b;
    this.#kept = new Uint8Array(0);
    while (data.length > 0) {
      const used = this.#left > 0 ? this.#piece(data) : this.#frame(data);
      if (used === 0) {
        this.#kept = data.slice();
        return;
      }
      data = data.subarray(used);
    }
  }

  #piece(data: Bytes): number {
    const n = Math.min(this.#left, data.length);
    this.#left -= n;
    this.each(this.#channel, data.subarray(0, n));
    return n;
  }

  /** #frame returns how many bytes it used, 0 where too few are there. */
  #frame(data: Bytes): number {
    if (data.length < headerLen) return 0;
    const v = new DataView(data.buffer, data.byteOffset);
    const length = v.getUint16(0);
    const channel = v.getUint16(2);
    if (channel === controlID || channel === protocolID) {
      if (data.length < headerLen + length) return 0;
      this.each(channel, data.subarray(headerLen, headerLen + length));
      return headerLen + length;
    }
    if (length === 0) this.each(channel, data.subarray(0, 0));
    this.#channel = channel;
    this.#left = length;
    return headerLen;
  }
}
