// One call: an RTCPeerConnection from its offer to its proof, on either side.

import { type Bytes, hex, sha256, unhex } from "./bytes";
import type { Peer } from "./chain";
import { DataChannelCarrier, Loose, Messages } from "./datachannel";
import { Code, LostError, ProtocolError } from "./errors";
import type { Identity } from "./identity";
import type { DeviceID } from "./keys";
import { prove, type Role } from "./proof";
import { type Decoded, encodeSignal, Kind, ownFingerprint } from "./signal";

export const label = "peerlink";
export const datagrams = "peerlink.datagrams";
/** How long the first signal waits for candidates, in milliseconds. */
const gatherTime = 80;
/** The longest message that is sent, whatever the other takes: a link's frame. */
const mostSent = 16 << 10;
const maxCandidates = 16;
/** How long a call waits to be told its servers: other paths wait with it. In milliseconds. */
const serversTime = 2000;

/** CallConfig is what calls are made with. */
export interface CallConfig {
  me: Identity;
  /** iceServers is asked before each call, which goes on without them after 2 s. */
  iceServers: () => Promise<RTCIceServer[]>;
  /** relayOnly: over TURN servers alone, so that no other device learns this one's addresses. */
  relayOnly?: boolean;
  trusted?: (peer: Peer) => void;
}

/** Proven is a carrier and who is at its other end. */
export interface Proven {
  carrier: DataChannelCarrier;
  peer: Peer;
}

/** Call is one side of one call. Whoever makes it must hangUp, or take what secure gives. */
export class Call {
  /** Settles when the connection has failed or ended. */
  readonly lost: Promise<string>;
  #lose!: (why: string) => void;
  #pc: RTCPeerConnection;
  #own: Bytes | undefined;
  #farPrint = "";
  #largest = mostSent;
  #found: string[] = [];
  #heard = new Set<string>();
  #early: string[] = [];
  #described = false;
  #tell: ((candidate: string) => void) | undefined;
  #opened: Promise<Messages>;
  #open!: (m: Messages) => void;
  #messages: Messages | undefined;
  readonly #loose = new Loose();
  #gathered: Promise<void>;

  private constructor(
    private readonly config: CallConfig,
    readonly role: Role,
    readonly id: string,
    readonly peer: DeviceID,
    certificate: RTCCertificate,
    iceServers: RTCIceServer[],
  ) {
    this.lost = new Promise((resolve) => (this.#lose = resolve));
    this.#opened = new Promise((resolve) => (this.#open = resolve));
    this.#pc = new RTCPeerConnection({ iceServers, certificates: [certificate], iceTransportPolicy: config.relayOnly ? "relay" : "all" });
    this.#own = printOf(certificate);
    this.#pc.onconnectionstatechange = () => {
      const s = this.#pc.connectionState;
      if (s === "failed" || s === "closed") this.#ended("no path to the device is left");
    };
    this.#gathered = new Promise((resolve) => {
      this.#pc.onicecandidate = (e) => {
        if (!e.candidate) resolve();
        else if (e.candidate.candidate !== "") this.#candidate(e.candidate.candidate);
      };
    });
    this.#pc.ondatachannel = (e) => this.#incoming(e.channel);
  }

  /** make gives each call a certificate of its own, so that two calls of one device cannot be told to be of one. */
  static async make(config: CallConfig, role: Role, id: string, peer: DeviceID): Promise<Call> {
    const kind = { name: "ECDSA", namedCurve: "P-256" };
    const [certificate, servers] = await Promise.all([RTCPeerConnection.generateCertificate(kind), within(config.iceServers(), serversTime)]);
    return new Call(config, role, id, peer, certificate, servers ?? []);
  }

  /** offer makes the caller's description and waits a moment for candidates. */
  async offer(): Promise<string> {
    this.#take(this.#pc.createDataChannel(label, { ordered: true }));
    this.#loose.use(this.#pc.createDataChannel(datagrams, { ordered: false, maxRetransmits: 0 }));
    await this.#pc.setLocalDescription(await this.#pc.createOffer());
    await this.#gather();
    return this.#description();
  }

  /** answer takes the caller's description and makes the callee's. */
  async answer(offer: Decoded): Promise<string> {
    await this.describe("offer", offer);
    await this.#pc.setLocalDescription(await this.#pc.createAnswer());
    await this.#gather();
    return this.#description();
  }

  /** describe sets the other's description and the candidates that came before it. */
  async describe(type: "offer" | "answer", m: Decoded): Promise<void> {
    this.#farPrint = m.fingerprint;
    this.#largest = Math.min(this.#largest, m.maxMessage);
    await this.#pc.setRemoteDescription({ type, sdp: m.sdp });
    this.#described = true;
    this.add([...this.#early.splice(0), ...m.candidates]);
  }

  /** add takes candidates of the other, which may overtake its description. */
  add(candidates: string[]): void {
    for (const c of candidates) {
      if (!this.#described) {
        if (this.#early.length < maxCandidates) this.#early.push(c);
      } else if (this.#heard.size < maxCandidates && !this.#heard.has(c)) {
        this.#heard.add(c);
        this.#pc.addIceCandidate({ candidate: c, sdpMLineIndex: 0 }).catch(() => {}); // one that the browser does not take
      }
    }
  }

  /** candidates are this side's, so far. */
  get candidates(): string[] {
    return this.#found.slice(0, maxCandidates);
  }

  /** trickle tells those that are found from now on. */
  trickle(tell: (candidate: string) => void): void {
    this.#tell = tell;
  }

  /** signal lays out a signal of this call. */
  signal(kind: number, more: { sdp?: string; candidates?: string[]; reason?: string; code?: number } = {}): Bytes {
    return encodeSignal({ kind, call: this.id, ...more });
  }

  /** secure waits for the data channel and proves both sides over it. */
  async secure(): Promise<Proven> {
    const broken = this.lost.then((why) => Promise.reject(new LostError(why)));
    const messages = await Promise.race([this.#opened, broken]);
    const own = this.#own ?? ownFingerprint(this.#pc.localDescription?.sdp ?? "");
    const far = await this.#farFingerprint();
    const { me, trusted } = this.config;
    const proof = prove({ me, role: this.role, peer: this.peer, own, far, ...(trusted ? { trusted } : {}) }, messages);
    const peer = await Promise.race([proof, broken]);
    const carrier = new DataChannelCarrier(messages, this.#largest, await this.#path(), this.#loose, () => this.hangUp());
    return { carrier, peer };
  }

  /** hangUp ends the connection. */
  hangUp(): void {
    this.#pc.close();
    this.#ended("the connection was closed");
  }

  #ended(why: string): void {
    this.#messages?.lost(why);
    this.#lose(why);
  }

  #candidate(c: string): void {
    this.#found.push(c);
    if (this.#found.length <= maxCandidates) this.#tell?.(c);
  }

  async #gather(): Promise<void> {
    await Promise.race([this.#gathered, new Promise((resolve) => setTimeout(resolve, gatherTime))]);
  }

  /** #description leaves the candidates out, which are sent beside it. */
  #description(): string {
    const sdp = this.#pc.localDescription?.sdp ?? "";
    return sdp.split("\r\n").filter((l) => !/^a=(candidate:|end-of-candidates)/.test(l)).join("\r\n");
  }

  /** #incoming takes the two channels that the caller is to open, and no others. */
  #incoming(dc: RTCDataChannel): void {
    const reliable = dc.ordered && dc.maxRetransmits === null && dc.maxPacketLifeTime === null;
    if (this.role === "callee" && dc.label === label && reliable && !this.#messages) this.#take(dc);
    else if (this.role !== "callee" || dc.label !== datagrams || dc.ordered || dc.maxRetransmits !== 0 || !this.#loose.use(dc)) dc.close();
  }

  #take(dc: RTCDataChannel): void {
    const m = new Messages(dc);
    this.#messages = m;
    if (dc.readyState === "open") this.#open(m);
    else dc.onopen = () => this.#open(m);
  }

  /**
   * #farFingerprint is that of the certificate in the finished handshake. A
   * browser that does not show it has checked it against the description, which
   * counts where all its fingerprint lines are equal.
   */
  async #farFingerprint(): Promise<Bytes> {
    const shown = this.#pc.sctp?.transport.getRemoteCertificates?.()[0];
    if (shown) return sha256(new Uint8Array(shown));
    if (this.#farPrint === "") throw new ProtocolError("the device's description names several certificates, and this browser does not tell which was used");
    return unhex(this.#farPrint);
  }

  async #path(): Promise<string> {
    const stats = await this.#pc.getStats();
    let out = "webrtc";
    stats.forEach((s: RTCTransportStats & { type: string }) => {
      if (s.type !== "transport" || !s.selectedCandidatePairId) return;
      const pair = stats.get(s.selectedCandidatePairId) as RTCIceCandidatePairStats | undefined;
      const [local, far] = [pair && stats.get(pair.localCandidateId), pair && stats.get(pair.remoteCandidateId)];
      if (local && far) out = `${[local, far].some((c) => c.candidateType === "relay") ? "relayed" : "direct"} over WebRTC`;
    });
    return out;
  }
}

/** printOf is the certificate's SHA-256, where the browser tells. */
function printOf(c: RTCCertificate): Bytes | undefined {
  const f = c.getFingerprints?.().find((p) => p.algorithm?.toLowerCase() === "sha-256");
  const b = f?.value ? unhex(f.value.replaceAll(":", "")) : undefined;
  return b?.length === 32 ? b : undefined;
}

/** within is what p brings in time; undefined where it fails or is late. */
async function within<T>(p: Promise<T>, ms: number): Promise<T | undefined> {
  let late: ReturnType<typeof setTimeout> | undefined;
  try {
    return await Promise.race([p, new Promise<undefined>((resolve) => (late = setTimeout(() => resolve(undefined), ms)))]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(late);
  }
}

/** newCallID makes an id that nobody can guess. */
export function newCallID(): string {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

/** withdrawal is what a caller says that gives up. */
export function withdrawal(call: Call): Bytes {
  return call.signal(Kind.refuse, { reason: "withdrawn", code: Code.cancelled });
}
