// One file over one channel, verified end to end (docs/protocol.md, "Files").

import { sha256 } from "@noble/hashes/sha2.js";
import { type Bytes, concat, cutText, equal, hex, utf8 } from "./bytes";
import { type Channel, pieces } from "./channel";
import { asError, Code, DeclinedError, LostError, ProtocolError } from "./errors";
import { maxCount, pack, Reader, uint } from "./packed";

const version = 1;
const maxTold = 1024;
const maxReason = 255;
const maxFileName = 255;
const sumLen = 32;
const reserved = /^(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])$/;

/** badFileName tells why a received file may not have this name; "" if it may. */
export function badFileName(name: string): string {
  if (name === "" || name === "." || name === "..") return "it is no name";
  if (utf8(name).length > maxFileName) return `it has more than ${maxFileName} bytes`;
  if (/[/\\:*?"<>|]/.test(name)) return "it has a character that separates or stands for paths";
  if (/^ |[ .]$/.test(name)) return "it begins or ends with a space or ends with a dot";
  if (!/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$/u.test(name)) return "it has an unprintable character";
  if (reserved.test(name.toUpperCase().split(".")[0]!.replace(/ +$/, ""))) return "it names a device on Windows";
  return "";
}

/** Input reads exact numbers of bytes of a stream. */
export class Input {
  #kept: Bytes = new Uint8Array(0);
  readonly #reader: ReadableStreamDefaultReader<Bytes>;

  constructor(stream: ReadableStream<Bytes>) {
    this.#reader = stream.getReader();
  }

  /** some returns 1 to most bytes; undefined at the end. */
  async some(most: number): Promise<Bytes | undefined> {
    while (this.#kept.length === 0) {
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#kept = value;
    }
    const out = this.#kept.subarray(0, most);
    this.#kept = this.#kept.subarray(out.length);
    return out;
  }

  /** exactly returns n bytes, or throws where the stream ends before. */
  async exactly(n: number): Promise<Bytes> {
    const parts: Bytes[] = [];
    for (let left = n; left > 0; ) {
      const b = await this.some(left);
      if (!b) throw new LostError("the device ended the transfer in the middle");
      parts.push(b);
      left -= b.length;
    }
    return concat(...parts);
  }

  /** drop gives up what is left. */
  async drop(): Promise<void> {
    await this.#reader.cancel().catch(() => {}); // it has ended already
  }
}

function told(...elements: unknown[]): Bytes {
  const body = pack(elements);
  return concat(new Uint8Array([body.length >> 8, body.length & 0xff]), body);
}

async function hear(input: Input, want: number): Promise<{ r: Reader; n: number }> {
  const [high, low] = await input.exactly(2);
  const n = high! * 256 + low!;
  if (n > maxTold) throw new ProtocolError(`a message of ${n} bytes, at most ${maxTold} are taken`);
  const r = new Reader(await input.exactly(n));
  const count = r.array(maxCount);
  if (count < want) throw new ProtocolError(`a message of ${count} elements, want ${want}`);
  return { r, n: count };
}

async function verdict(input: Input): Promise<{ ok: boolean; reason: string; sum: Bytes }> {
  const { r, n } = await hear(input, 2);
  const ok = r.bool();
  const reason = r.str(maxReason);
  return { ok, reason, sum: n > 2 ? r.bin(sumLen) : new Uint8Array(0) };
}

/** Told of each piece: bytes so far. */
export type Progress = (bytes: number) => void;

/**
 * sendFile sends a file and waits until the receiver has verified and kept it.
 * It rejects with a DeclinedError where that was not wanted, and resets the
 * channel where the signal aborts. It returns the SHA-256 in hex.
 */
export async function sendFile(channel: Channel, name: string, file: Blob, progress: Progress, signal?: AbortSignal): Promise<string> {
  const stop = () => channel.reset(Code.aborted);
  signal?.addEventListener("abort", stop, { once: true });
  const input = new Input(channel.readable);
  const out = channel.writable.getWriter();
  try {
    await out.write(told(version, name, uint(file.size)));
    const wanted = await verdict(input);
    if (!wanted.ok) throw new DeclinedError(wanted.reason);
    const sum = await sendContent(out, file, progress, input);
    const kept = await verdict(input);
    if (!kept.ok) throw new Error(`the other device did not keep the file: ${kept.reason}`);
    if (!equal(kept.sum, sum)) throw new Error("the file did not arrive as it was sent: the SHA-256 differs");
    return hex(sum);
  } catch (e) {
    channel.reset(Code.aborted); // does nothing where all has ended
    throw signal?.aborted ? asError(signal.reason) : e;
  } finally {
    signal?.removeEventListener("abort", stop);
    out.releaseLock();
    await input.drop();
    void channel.close();
  }
}

async function sendContent(out: WritableStreamDefaultWriter<Uint8Array>, file: Blob, progress: Progress, input: Input): Promise<Bytes> {
  const h = sha256.create();
  let sent = 0;
  try {
    for await (const chunk of pieces(file.stream())) {
      h.update(chunk);
      await out.write(chunk);
      sent += chunk.length;
      progress(sent);
    }
  } catch (e) {
    throw await toldWhy(input, asError(e));
  }
  if (sent !== file.size) throw new Error("the file has changed meanwhile");
  const sum = h.digest() as Bytes;
  await out.write(sum);
  return sum;
}

/** toldWhy prefers what the receiver said before it gave up. */
async function toldWhy(input: Input, e: Error): Promise<Error> {
  const said = await Promise.race([verdict(input).catch(() => undefined), new Promise<undefined>((resolve) => setTimeout(resolve, 200, undefined))]);
  return said && !said.ok ? new Error(`the other device gave up: ${said.reason}`) : e;
}

/** Announced is what a sender says of its file, checked. */
export interface Announced {
  name: string;
  size: number;
}

/** FileSink is where a received file goes. */
export interface FileSink {
  write(b: Bytes): Promise<void>;
  /** keep is called once the whole hash fits. */
  keep(): Promise<void>;
  /** discard is called instead where anything went wrong. */
  discard(): Promise<void>;
}

/**
 * receiveFile takes one file. wanted is asked with a checked name and size; it
 * returns where the file goes, or rejects to decline, with an error whose text
 * the sender is told. It returns the SHA-256 in hex.
 */
export async function receiveFile(channel: Channel, wanted: (a: Announced) => Promise<FileSink>, progress: Progress, signal?: AbortSignal): Promise<string> {
  const stop = () => channel.reset(Code.aborted);
  signal?.addEventListener("abort", stop, { once: true });
  const input = new Input(channel.readable);
  const out = channel.writable.getWriter();
  let done = false;
  try {
    const a = await announced(input, out);
    let sink: FileSink;
    try {
      sink = await Promise.race([wanted(a), channel.closed.then((e) => Promise.reject(e ?? new LostError("the sender has given up")))]);
    } catch (e) {
      await out.write(told(false, cutText(asError(e).message, maxReason))).catch(() => {}); // the sender may have gone
      done = true;
      throw e;
    }
    await out.write(told(true, ""));
    const sum = await receiveContent(input, out, a, sink, progress);
    done = true;
    return sum;
  } catch (e) {
    throw signal?.aborted ? asError(signal.reason) : e;
  } finally {
    signal?.removeEventListener("abort", stop);
    out.releaseLock();
    if (done) {
      await channel.writable.close().catch(() => {}); // cut meanwhile
      void drain(input, channel);
    } else channel.reset(Code.aborted);
  }
}

/** drain lets the sender close first, for a while, so that it reads the verdict. */
async function drain(input: Input, channel: Channel): Promise<void> {
  const late = setTimeout(() => channel.reset(Code.closed), 5000);
  while (await input.some(1 << 20).catch(() => undefined));
  clearTimeout(late);
  void channel.close();
}

async function announced(input: Input, out: WritableStreamDefaultWriter<Uint8Array>): Promise<Announced> {
  const { r } = await hear(input, 3);
  r.uint(1 << 16); // later versions add elements
  const a: Announced = { name: r.str(maxTold), size: r.uint(Number.MAX_SAFE_INTEGER) };
  const bad = badFileName(a.name);
  if (bad === "") return a;
  await out.write(told(false, `the file's name: ${bad}`));
  throw new ProtocolError(`a file with a name that is not taken: ${bad}`);
}

async function receiveContent(input: Input, out: WritableStreamDefaultWriter<Uint8Array>, a: Announced, sink: FileSink, progress: Progress): Promise<string> {
  const h = sha256.create();
  try {
    for (let left = a.size; left > 0; ) {
      const b = await input.some(left);
      if (!b) throw new LostError("the sender ended the transfer in the middle");
      h.update(b);
      await sink.write(b);
      left -= b.length;
      progress(a.size - left);
    }
    const sum = h.digest() as Bytes;
    if (!equal(sum, await input.exactly(sumLen))) throw new ProtocolError("the content does not match its SHA-256");
    await sink.keep();
    await out.write(told(true, "", sum));
    return hex(sum);
  } catch (e) {
    await sink.discard().catch(() => {}); // the first failure is the one to tell
    const why = e instanceof ProtocolError ? e.message : "the file could not be stored";
    await out.write(told(false, why, new Uint8Array(0))).catch(() => {}); // the sender may have gone
    throw e;
  }
}
