import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Bytes, concat, utf8 } from "../src/peerlink/bytes";
import { pair } from "../src/peerlink/carrier";
import type { Channel } from "../src/peerlink/channel";
import { lines, Speaker } from "../src/peerlink/chat";
import { DeclinedError, ProtocolError } from "../src/peerlink/errors";
import { Link } from "../src/peerlink/link";
import { pack } from "../src/peerlink/packed";
import { badFileName, type FileSink, receiveFile, sendFile } from "../src/peerlink/transfer";

async function channels(name = "file://x"): Promise<[Channel, Channel]> {
  const [a, b] = pair();
  let far!: Channel;
  new Link(b, "server", { request: (r) => (far = r.accept()) });
  const near = await new Link(a, "client").open(name);
  return [near, far];
}

class Sink implements FileSink {
  parts: Bytes[] = [];
  state = "open";
  async write(b: Bytes) {
    this.parts.push(b.slice());
  }
  async keep() {
    this.state = "kept";
  }
  async discard() {
    this.state = "discarded";
  }
}

const content = new Uint8Array(1_000_003).map((_, i) => (i * i) >> 3);
const nobody = () => {};

describe("files", () => {
  test("arrive whole, with their hash, and are kept only then", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    const seen: number[] = [];
    const [sent, got] = await Promise.all([
      sendFile(near, "photo.jpg", new Blob([content]), nobody),
      receiveFile(far, async (a) => (expect(a).toEqual({ name: "photo.jpg", size: content.length }), sink), (n) => seen.push(n)),
    ]);
    expect(sent).toBe(createHash("sha256").update(content).digest("hex"));
    expect(got).toBe(sent);
    expect(sink.state).toBe("kept");
    expect(Buffer.compare(concat(...sink.parts), content)).toBe(0);
    expect(seen.at(-1)).toBe(content.length);
    expect(await near.closed).toBeUndefined();
    expect(await far.closed).toBeUndefined();
  });
  test("of no bytes", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    await Promise.all([sendFile(near, "empty", new Blob([]), nobody), receiveFile(far, async () => sink, nobody)]);
    expect(sink.state).toBe("kept");
  });
  test("are declined with a reason", async () => {
    const [near, far] = await channels();
    const [sent, got] = await Promise.allSettled([
      sendFile(near, "x", new Blob([content]), nobody),
      receiveFile(far, () => Promise.reject(new Error("no, thanks")), nobody),
    ]);
    expect((sent as PromiseRejectedResult).reason).toBeInstanceOf(DeclinedError);
    expect(((sent as PromiseRejectedResult).reason as DeclinedError).reason).toBe("no, thanks");
    expect(got.status).toBe("rejected");
  });
  test("that are stopped by the sender are discarded", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    const stop = new AbortController();
    const [sent, got] = await Promise.allSettled([
      sendFile(near, "x", new Blob([content]), nobody, stop.signal),
      receiveFile(far, async () => sink, () => stop.abort(new Error("stopped"))),
    ]);
    expect((sent as PromiseRejectedResult).reason).toMatchObject({ message: "stopped" });
    expect(got.status).toBe("rejected");
    expect(sink.state).toBe("discarded");
  });
  test("that a receiver cannot store: the sender is told", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    sink.write = () => Promise.reject(new Error("disk full at /secret"));
    const [sent] = await Promise.allSettled([sendFile(near, "x", new Blob([content]), nobody), receiveFile(far, async () => sink, nobody)]);
    expect((sent as PromiseRejectedResult).reason).toMatchObject({ message: expect.stringContaining("could not be stored") });
    expect((sent as PromiseRejectedResult).reason.message).not.toContain("secret");
    expect(sink.state).toBe("discarded");
  });
  test("with a wrong hash are discarded", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    const w = near.writable.getWriter();
    const head = pack([1, "x", 3]);
    await w.write(concat(new Uint8Array([0, head.length]), head, utf8("abc"), new Uint8Array(32)));
    await expect(receiveFile(far, async () => sink, nobody)).rejects.toThrow(ProtocolError);
    expect(sink.state).toBe("discarded");
  });
  test("that end too soon are discarded", async () => {
    const [near, far] = await channels();
    const sink = new Sink();
    const w = near.writable.getWriter();
    const head = pack([1, "x", 300]);
    await w.write(concat(new Uint8Array([0, head.length]), head, utf8("abc")));
    await w.close();
    await expect(receiveFile(far, async () => sink, nobody)).rejects.toThrow("in the middle");
    expect(sink.state).toBe("discarded");
  });
  for (const name of ["../../etc/passwd", "a/b", "CON.txt", "x\u202egpj.exe", "", ".", " a", "a.", "x".repeat(256)]) {
    test(`with the name ${JSON.stringify(name).slice(0, 30)} are refused before anybody is asked`, async () => {
      expect(badFileName(name)).not.toBe("");
      const [near, far] = await channels();
      const asked: string[] = [];
      const [sent, got] = await Promise.allSettled([
        sendFile(near, name, new Blob(["x"]), nobody),
        receiveFile(far, async (a) => (asked.push(a.name), new Sink()), nobody),
      ]);
      expect([sent.status, got.status, asked.length]).toEqual(["rejected", "rejected", 0]);
    });
  }
  test("names that are taken", () => {
    for (const name of ["photo.jpg", ".profile", "Zoë’s résumé (1).pdf", "日本.txt", "contest"]) expect(badFileName(name)).toBe("");
  });
});

describe("chats", () => {
  test("carry lines both ways, whatever the cuts", async () => {
    const [near, far] = await channels("chat://x");
    const me = new Speaker(near);
    const heard = lines(far);
    await me.say("hé");
    await me.say("two\nlines");
    expect((await heard.next()).value).toBe("hé");
    expect((await heard.next()).value).toBe("two lines");
    const them = new Speaker(far);
    await them.say("yes");
    expect((await lines(near).next()).value).toBe("yes");
    await me.end();
    expect((await heard.next()).done).toBe(true);
  });
  test("a line without an end comes in pieces of 64 KiB", async () => {
    const [near, far] = await channels("chat://x");
    const w = near.writable.getWriter();
    void w.write(utf8("x".repeat(100_000) + "\n"));
    const heard = lines(far);
    expect(((await heard.next()).value as string).length).toBe(64 << 10);
    expect(((await heard.next()).value as string).length).toBe(100_000 - (64 << 10));
  });
});
