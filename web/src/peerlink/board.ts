// Messages between a client and a switchboard:
//
//   [op uint, number uint, device bin 0 or 32, body bin, extra bin, …]

import { type Bytes, hex } from "./bytes";
import { ProtocolError } from "./errors";
import { type DeviceID, idBytes } from "./keys";
import { pack, Reader, uint } from "./packed";
import { maxSealed } from "./seal";

export const subprotocol = "peerlink-switchboard.1";
export const maxBoardFrame = 32 << 10;
const maxExtra = 128;
const maxMore = 8;
const maxNumber = 2 ** 53;

/** Op says what a message is. */
export const Op = {
  challenge: 1, join: 2, joined: 3, ask: 4, card: 5, send: 6, taken: 7, absent: 8, stale: 9, busy: 10, letter: 11,
} as const;

/** BoardFrame is one message. */
export interface BoardFrame {
  op: number;
  number: number;
  device: DeviceID | "";
  body: Bytes;
  extra: Bytes;
}

const none = new Uint8Array(0);

/** encodeBoard lays a message out; what is left out is 0 or empty. */
export function encodeBoard(f: Partial<BoardFrame> & { op: number }): Bytes {
  const b = pack([f.op, uint(f.number ?? 0), f.device ? idBytes(f.device) : none, f.body ?? none, f.extra ?? none]);
  if (b.length > maxBoardFrame) throw new RangeError(`a message of ${b.length} bytes, at most ${maxBoardFrame} can be sent`);
  return b;
}

/** decodeBoard takes a server's message apart. */
export function decodeBoard(b: Bytes): BoardFrame {
  if (b.length > maxBoardFrame) throw new ProtocolError(`a message of ${b.length} bytes, at most ${maxBoardFrame} are taken`);
  const r = new Reader(b);
  const n = r.array(5 + maxMore);
  if (n < 5) throw new ProtocolError(`a message of ${n} elements, want 5`);
  const op = r.uint(255);
  const number = r.uint(maxNumber);
  const device = r.bin(32);
  if (device.length !== 0 && device.length !== 32) throw new ProtocolError(`a device id of ${device.length} bytes`);
  const f: BoardFrame = { op, number, device: hex(device) as DeviceID | "", body: r.bin(maxSealed), extra: r.bin(maxExtra) };
  r.rest(n - 5);
  return f;
}
