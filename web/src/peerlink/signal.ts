// The signals of a call: msgpack maps of at most 8 KiB (docs/protocol.md,
// "Signals of a call"). The signaller encrypts and signs them.

import { type Bytes, cutText, hex, unhex } from "./bytes";
import { ProtocolError } from "./errors";
import { pack, maxCount, Reader } from "./packed";

const maxSignal = 8 << 10;
const maxDescription = 4 << 10;
const maxCandidates = 16;
const maxCandidateLen = 256;
const maxReason = 200;
const maxKey = 32;
/** The longest message that is sent or taken on a data channel, in bytes. */
export const maxMessage = 64 << 10;
const leastMessage = 1 << 10;

export const Kind = { offer: 16, answer: 17, refuse: 18, candidates: 19 } as const;

/** Signal is one of them. */
export interface Signal {
  kind: number;
  call: string; // 32 hex digits
  sdp: string; // after decode: without candidates
  candidates: string[];
  reason: string;
  /** Of a refusal: what it means to a program, 0 where its sender told none. */
  code: number;
}

/** Decoded is a signal with what its description says. */
export interface Decoded extends Signal {
  maxMessage: number;
  /** SHA-256 of the one DTLS certificate that fits all fingerprint lines, in hex; "" where they differ. */
  fingerprint: string;
}

/** Reachable says which candidates are used besides addresses of networks. */
export interface Reachable {
  loopback?: boolean;
  /** names under .local, which browsers give instead of addresses and resolve themselves */
  names?: boolean;
}

/** encodeSignal lays a signal out; no more candidates than a receiver takes. */
export function encodeSignal(s: { kind: number; call: string } & Partial<Signal>): Bytes {
  const m: Record<string, unknown> = { k: s.kind, i: unhex(s.call) };
  if (s.sdp) m["s"] = s.sdp;
  if (s.candidates && s.candidates.length > 0) m["c"] = s.candidates.slice(0, maxCandidates);
  if (s.reason) m["r"] = cutText(s.reason, maxReason);
  if (s.code) m["e"] = s.code;
  const b = pack(m);
  if (b.length > maxSignal) throw new RangeError(`a signal of ${b.length} bytes, at most ${maxSignal} can be sent`);
  return b;
}

/** decodeSignal reads what a peer sent. */
export function decodeSignal(b: Bytes, on: Reachable = {}): Decoded {
  if (b.length > maxSignal) throw new ProtocolError(`a signal of ${b.length} bytes, at most ${maxSignal} are taken`);
  const r = new Reader(b);
  const m: Decoded = { kind: 0, call: "", sdp: "", candidates: [], reason: "", code: 0, maxMessage, fingerprint: "" };
  const seen = new Set<string>();
  for (let n = r.map(maxCount); n > 0; n--) {
    const key = r.str(maxKey);
    if (seen.has(key)) throw new ProtocolError("a key given twice");
    seen.add(key);
    field(r, m, key);
  }
  if (!seen.has("k") || !seen.has("i")) throw new ProtocolError("a signal without a kind or a call id");
  r.rest(0);
  if (m.kind === Kind.offer || m.kind === Kind.answer) describe(m);
  m.candidates = m.candidates.filter((c) => mayUse(c, on)).slice(0, maxCandidates);
  return m;
}

function field(r: Reader, m: Decoded, key: string): void {
  switch (key) {
    case "k":
      m.kind = r.uint(255);
      return;
    case "i":
      m.call = hex(r.exactly(16));
      return;
    case "s":
      m.sdp = r.str(maxDescription);
      return;
    case "r":
      m.reason = r.str(maxReason);
      return;
    case "e":
      m.code = r.uint(0xffffffff);
      return;
    case "c":
      for (let n = r.array(maxCandidates); n > 0; n--) m.candidates.push(r.str(maxCandidateLen));
      return;
  }
  r.skip();
}

/** describe checks a description and takes its candidates out, so that none gets past mayUse. */
function describe(m: Decoded): void {
  const kept: string[] = [];
  const prints: string[] = [];
  let sections = 0;
  const lines = m.sdp.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const raw of lines) {
    const line = raw.replace(/\r+$/, "");
    if (!/^[ -~]*$/.test(line)) throw new ProtocolError("a description with a character that is not printable ASCII");
    const [attribute, value] = cut(line);
    if (attribute === "a=candidate") {
      if (value.length <= maxCandidateLen) m.candidates.push(`candidate:${value}`);
      continue;
    }
    if (attribute === "a=end-of-candidates") continue;
    if (attribute === "a=max-message-size") m.maxMessage = messageSize(value);
    if (attribute === "a=fingerprint") prints.push(print(value));
    if (line.startsWith("m=")) {
      if (!line.startsWith("m=application ") || !line.endsWith(" webrtc-datachannel")) throw new ProtocolError("a section that is no data channel");
      sections++;
    }
    kept.push(line);
  }
  if (sections !== 1 || prints.length === 0 || prints.length > 2) {
    throw new ProtocolError(`a description with ${sections} data channel sections and ${prints.length} fingerprints, want one of each`);
  }
  m.fingerprint = prints.every((p) => p === prints[0]) ? prints[0]! : "";
  m.sdp = kept.join("\r\n") + "\r\n";
}

function cut(line: string): [string, string] {
  const at = line.indexOf(":");
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}

function messageSize(value: string): number {
  const n = /^\d{1,10}$/.test(value) ? Number(value) : -1;
  if (n < 0 || n > 0xffffffff || (n > 0 && n < leastMessage)) throw new ProtocolError(`a=max-message-size: want 0 or ${leastMessage} and more`);
  return n === 0 ? maxMessage : Math.min(n, maxMessage);
}

function print(value: string): string {
  const m = /^sha-256 (.*)$/i.exec(value);
  if (!m) throw new ProtocolError("a fingerprint that is no SHA-256");
  const digits = m[1]!.replaceAll(":", "").toLowerCase();
  return /^[0-9a-f]{64}$/.test(digits) ? digits : "";
}

/** ownFingerprint reads the SHA-256 of this side's certificate from its own description. */
export function ownFingerprint(sdp: string): Bytes {
  const m = /^a=fingerprint:sha-256 ([0-9A-F:]+)\s*$/im.exec(sdp);
  const b = unhex((m?.[1] ?? "").replaceAll(":", ""));
  if (b.length !== 32) throw new Error("the browser's description has no SHA-256 fingerprint");
  return b;
}

/** mayUse reads candidate:foundation component transport priority address port typ type. */
function mayUse(c: string, on: Reachable): boolean {
  if (!/^[ -~]*$/.test(c)) return false;
  const f = c.trim().split(/\s+/);
  if (f.length < 8 || !f[0]!.startsWith("candidate:") || f[6] !== "typ") return false;
  if (!/^(udp|tcp)$/i.test(f[2]!)) return false;
  if (!/^\d{1,5}$/.test(f[5]!) || Number(f[5]) === 0 || Number(f[5]) > 65535) return false;
  return usable(f[4]!.toLowerCase(), on);
}

function usable(address: string, on: Reachable): boolean {
  if (on.names && /^[0-9a-f-]{36}\.local$/.test(address)) return true;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(mapped?.[1] ?? address);
  if (v4) {
    const p = v4.slice(1);
    if (p.some((x) => Number(x) > 255 || (x.length > 1 && x[0] === "0"))) return false;
    const first = Number(p[0]);
    if (first === 127) return on.loopback === true;
    const all = p.join(".");
    return all !== "0.0.0.0" && all !== "255.255.255.255" && !(first >= 224 && first <= 239);
  }
  const canonical = v6(address);
  if (canonical === undefined || canonical === "::") return false;
  if (canonical === "::1") return on.loopback === true;
  return !canonical.startsWith("ff");
}

/** v6 is an IPv6 address in its shortest form; undefined for what is none. */
function v6(address: string): string | undefined {
  if (!/^[0-9a-f:.]+$/.test(address) || !address.includes(":")) return undefined;
  try {
    return new URL(`http://[${address}]/`).hostname.slice(1, -1);
  } catch {
    return undefined;
  }
}
