// What library.mjs runs in a page.

import { Device } from "../src/peerlink/device";
import { Identity } from "../src/peerlink/identity";
import { parseDeviceID } from "../src/peerlink/keys";

const nothing = () => {};

/**
 * datagrams sends numbered ones of the longest length to a device that sends
 * each back, until so many have come back.
 */
export async function datagrams(signal: string, to: string, wanted: number, patience: number): Promise<{ most: number; came: number; whole: boolean }> {
  const device = new Device(await Identity.create("library"), { signal, reachable: { loopback: true, names: true } },
    { line: nothing, connected: nothing, lost: nothing, beat: nothing, request: (_, r) => r.decline("") });
  const channel = await device.open(parseDeviceID(to), "loose://echo");
  const most = channel.maxDatagram;
  const reader = channel.datagrams.getReader();
  const came = new Set<number>();
  let whole = true;
  const numbered = (n: number) => {
    const b = new Uint8Array(most).map((_, i) => (n * 31 + i) & 255);
    new DataView(b.buffer).setUint32(0, n);
    return b;
  };
  const over = AbortSignal.timeout(patience);
  const echoes = (async () => {
    while (came.size < wanted) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the channel has ended");
      const n = new DataView(value.buffer, value.byteOffset).getUint32(0);
      const want = numbered(n);
      whole &&= value.length === most && value.every((v, i) => v === want[i]);
      came.add(n);
    }
  })();
  for (let n = 0; came.size < wanted; n++) {
    over.throwIfAborted();
    channel.sendDatagram(numbered(n)); // what is dropped is made up for by further ones
    await new Promise((r) => setTimeout(r, 1));
  }
  await echoes;
  await channel.close();
  device.close();
  return { most, came: came.size, whole };
}
