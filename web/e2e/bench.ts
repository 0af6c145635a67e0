// What bench.mjs runs in the page: one channel, and the stream of the data
// channel alone.

import { Calls } from "../src/peerlink/calls";
import { concat } from "../src/peerlink/bytes";
import { Device } from "../src/peerlink/device";
import { Identity } from "../src/peerlink/identity";
import { parseDeviceID } from "../src/peerlink/keys";
import { Switchboard } from "../src/peerlink/switchboard";

const piece = 256 << 10;
const nothing = () => {};

/** channel measures one channel of a link: MB/s up and down. */
export async function channel(signal: string, to: string, bytes: number): Promise<{ up: number; down: number }> {
  const me = await Identity.create("bench");
  const device = new Device(me, { signal, reachable: { loopback: true, names: true } }, { line: nothing, connected: nothing, lost: nothing, beat: nothing, request: (_, r) => r.decline("") });
  const peer = parseDeviceID(to);
  await device.connect(peer);
  const up = await timed(bytes, async () => {
    const c = await device.open(peer, "bench://up");
    const w = c.writable.getWriter();
    for (let left = bytes; left > 0; left -= piece) await w.write(new Uint8Array(piece));
    await w.close();
    const { value } = await c.readable.getReader().read();
    if (Number(new TextDecoder().decode(value)) !== bytes) throw new Error("the other side has counted another number of bytes");
  });
  const down = await timed(bytes, async () => {
    const c = await device.open(peer, `bench://down/${bytes}`);
    let got = 0;
    const r = c.readable.getReader();
    for (;;) {
      const { done, value } = await r.read();
      if (done) break;
      got += value.length;
    }
    if (got !== bytes) throw new Error(`${got} bytes came`);
  });
  device.close();
  return { up, down };
}

/** bare measures the data channel without a link. */
export async function bare(signal: string, to: string, bytes: number): Promise<{ up: number; down: number }> {
  const out = { up: 0, down: 0 };
  for (const way of ["up", "down"] as const) {
    const me = await Identity.create("bench");
    let calls: Calls;
    const line = new Switchboard(signal, me, { state: nothing, message: (from, body) => calls.handle(from, body) });
    calls = new Calls({ me, signaller: line, iceServers: async () => [], reachable: { loopback: true, names: true }, incoming: nothing });
    const { carrier } = await calls.dial(parseDeviceID(to));
    const size = new Uint8Array(8);
    new DataView(size.buffer).setBigUint64(0, BigInt(bytes));
    const head = concat(new Uint8Array([way === "up" ? 0x75 : 0x64]), size);
    out[way] = await timed(bytes, () => new Promise((done, failed) => {
      let left = way === "up" ? bytes : 0;
      let due = way === "up" ? 1 : bytes;
      const more = () => {
        for (; left > 0 && !carrier.full; left -= 16 << 10) carrier.send(new Uint8Array(16 << 10));
      };
      carrier.start({
        data: (b) => (due -= b.length) <= 0 && done(),
        ended: (e) => failed(e ?? new Error("it ended too soon")),
        drained: more,
      });
      carrier.send(head);
      more();
    }));
    carrier.close();
    line.close();
  }
  return out;
}

/** timed returns MB/s (10^6 bytes). */
async function timed(bytes: number, run: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await run();
  return bytes / (performance.now() - began) / 1000;
}
