// Every decoder of foreign bytes, fed with the vectors after some bytes were
// changed, cut or doubled: it decodes, or throws one of our own errors.

import { expect, test } from "vitest";
import { decodeBoard } from "../src/peerlink/board";
import { type Bytes, concat, unhex } from "../src/peerlink/bytes";
import { verifyChain } from "../src/peerlink/chain";
import { ProtocolError } from "../src/peerlink/errors";
import { Input } from "../src/peerlink/input";
import * as messages from "../src/peerlink/messages";
import * as parcel from "../src/peerlink/parcelwire";
import { decodeHello } from "../src/peerlink/proof";
import { decodeCard, decodeLetter } from "../src/peerlink/seal";
import { decodeSignal } from "../src/peerlink/signal";
import type { DeviceID } from "../src/peerlink/keys";
import { read } from "./vectors";

const rtc = read<{ signals: { wire: string }[]; proofs: { caller: { hello: string } }[] }>("webrtc/testdata/vectors.json");
const board = read<{ unix_milli: number; frames: { wire: string }[]; joins: { card: string }[]; letters: { plain: string }[] }>("webrtc/switchboard/testdata/vectors.json");
const chain = read<{ chain: string[] }>("identity/testdata/vector.json").chain.map(unhex);
const frames = read<{ name: string; frame: string }[]>("cmd/peerchat/internal/files/parcel/testdata/frames.json");
const said = read<{ letters: { frame: string }[]; receipts: { frame: string }[] }>("cmd/peerchat/internal/chat/testdata/messages.json");

const { Kind } = parcel;
const parcelDecoders: Record<number, (b: Bytes) => unknown> = {
  [Kind.offer]: parcel.decodeOffer, [Kind.answer]: parcel.decodeAnswer, [Kind.entry]: parcel.decodeEntry, [Kind.compare]: parcel.decodeIndex,
  [Kind.digest]: parcel.decodeDigest, [Kind.want]: parcel.decodeWant, [Kind.start]: parcel.decodeStart, [Kind.broken]: parcel.decodeReason,
  [Kind.kept]: parcel.decodeKept, [Kind.failed]: parcel.decodeReason,
};

/** parcelMessage decodes what its kind says, as both sides do. */
function parcelMessage(b: Bytes): unknown {
  const decode = parcelDecoders[b[4] ?? -1];
  if (!decode) throw new ProtocolError("a frame of another kind");
  return decode(b.slice(5));
}

/** message reads one of a stream that ends. */
async function message(b: Bytes, decode: (b: Bytes) => unknown): Promise<unknown> {
  const body = await messages.receive(new Input(new Blob([b]).stream()));
  return body && decode(body);
}

let seed = 42;
/** below returns a number that is the same in every run. */
function below(n: number): number {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  return (seed >> 8) % n;
}

function mutated(b: Bytes): Bytes {
  let out = b.slice();
  for (let n = 1 + below(4); n > 0 && out.length > 0; n--) {
    const at = below(out.length);
    const what = below(4);
    if (what === 0) out[at] = below(256);
    else if (what === 1) out[at] = [0, 0x7f, 0x80, 0xc4, 0xc6, 0xdb, 0xdd, 0xdf, 0xff][below(9)]!;
    else if (what === 2) out = out.slice(0, at);
    else out = concat(out.subarray(0, at), out.subarray(below(at + 1)));
  }
  return out;
}

const decoders: Record<string, { from: string[]; decode: (b: Bytes) => unknown; rounds: number }> = {
  signal: { from: rtc.signals.map((s) => s.wire), decode: (b) => decodeSignal(b, { names: true }), rounds: 5000 },
  hello: { from: rtc.proofs.map((p) => p.caller.hello), decode: decodeHello, rounds: 5000 },
  "a switchboard's message": { from: board.frames.map((f) => f.wire), decode: decodeBoard, rounds: 5000 },
  card: { from: board.joins.map((j) => j.card), decode: (b) => decodeCard(b, board.unix_milli), rounds: 500 },
  letter: { from: board.letters.map((l) => l.plain), decode: (b) => decodeLetter("00" as DeviceID, b, board.unix_milli), rounds: 500 },
  "a parcel's message": { from: frames.map((f) => f.frame), decode: parcelMessage, rounds: 5000 },
  "a chat's letter": { from: said.letters.map((l) => l.frame), decode: (b) => message(b, messages.decodeLetter), rounds: 2000 },
  "a chat's receipt": { from: said.receipts.map((r) => r.frame), decode: (b) => message(b, messages.decodeReceipt), rounds: 2000 },
  certificate: { from: [], decode: (b) => verifyChain([b, chain[1]!], Date.UTC(2027, 0)), rounds: 500 },
};

for (const [name, { from, decode, rounds }] of Object.entries(decoders)) {
  test(`${name}: ${rounds} broken ones`, async () => {
    const good = from.length > 0 ? from.map(unhex) : [chain[0]!];
    let refused = 0;
    for (let i = 0; i < rounds; i++) {
      const b = mutated(good[below(good.length)]!);
      try {
        await decode(b);
      } catch (e) {
        refused++;
        if (!["ProtocolError", "IdentityError", "LostError"].includes((e as Error).name)) throw e;
      }
    }
    expect(refused).toBeGreaterThan(rounds / 2);
  });
}
