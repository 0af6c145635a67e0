import "fake-indexeddb/auto";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { App } from "../src/page/app";
import { Arrivals, type FileItem } from "../src/page/fileitem";
import { place, room } from "../src/page/files";
import { utf8 } from "../src/peerlink/bytes";
import { Identity } from "../src/peerlink/identity";
import type { DeviceID } from "../src/peerlink/keys";

/** Node is what the page needs of an element. */
class Node {
  textContent = "";
  dataset: Record<string, string> = {};
  classList = { add: () => {}, remove: () => {} };
  children: (Node | string)[] = [];
  attributes = new Map<string, string>();
  listeners = new Map<string, () => void>();
  setAttribute = (name: string, value: string) => void this.attributes.set(name, value);
  addEventListener = (what: string, f: () => void) => void this.listeners.set(what, f);
  append = (...more: (Node | string)[]) => void this.children.push(...more);
  prepend = (...more: (Node | string)[]) => void this.children.unshift(...more);
  replaceChildren = (...more: (Node | string)[]) => void (this.children = more);
  /** all returns this element and all in it. */
  all(): Node[] {
    return [this, ...this.children.flatMap((c) => (typeof c === "string" ? [] : c.all()))];
  }
}

const sockets: string[] = [];

beforeEach(() => {
  indexedDB = new IDBFactory();
  const make = () => new Node();
  vi.stubGlobal("document", { createElement: make, createElementNS: make, getElementById: make, addEventListener: () => {} });
  vi.stubGlobal("navigator", {}); // a browser without a file system
  vi.stubGlobal("location", { hostname: "localhost", hash: "" });
  vi.stubGlobal("localStorage", { getItem: () => null, setItem: () => {} });
  vi.stubGlobal("addEventListener", () => {});
  sockets.length = 0;
  vi.stubGlobal("WebSocket", class {
    constructor(url: string) {
      sockets.push(url);
    }
    close() {}
  });
});

describe("a start", () => {
  const app = async () => new App(await Identity.create("page"), { signal: "ws://localhost/switchboard" });
  test("makes the device", async () => {
    const a = await app();
    await a.start();
    expect([a.device() !== undefined, a.messenger() !== undefined, a.lasting, sockets.length]).toEqual([true, true, true, 1]);
    a.stop();
    expect([a.device(), a.messenger()]).toEqual([undefined, undefined]);
  });
  test("makes none where it is stopped before it is over, at any of its steps", async () => {
    const a = await app();
    let cleared = () => {};
    const early = a.start(new Promise((done) => (cleared = done)));
    a.stop();
    cleared();
    await early;
    const late = a.start();
    a.stop();
    await late;
    expect([a.device(), a.messenger(), sockets.length]).toEqual([undefined, undefined, 0]);
    await a.start();
    expect([a.device() !== undefined, sockets.length]).toEqual([true, 1]);
    a.stop();
  });
});

describe("files in memory", () => {
  const most = 256 << 20;
  const never = new AbortController().signal;

  /** taken offers a file and has the user accept it. */
  async function taken(bytes: number): Promise<{ item: FileItem; arrivals: Arrivals; view: Node }> {
    let item!: FileItem;
    const asked = Arrivals.ask({ from: "aa".repeat(32) as DeviceID, names: ["x"], entries: 1, bytes }, never, () => {}, (i) => (item = i));
    const view = item.view as unknown as Node;
    view.all().find((n) => n.children.includes("Accept"))!.listeners.get("click")!();
    return { item, arrivals: await asked, view };
  }

  test("are freed when their item leaves the log, kept or not", async () => {
    const revoked = vi.spyOn(URL, "revokeObjectURL");
    const f = { path: "x", size: most };
    const { item, arrivals, view } = await taken(most);
    const sink = await arrivals.place(f);
    await sink.write(utf8("content"));
    arrivals.kept(f, "00", sink);
    arrivals.ended(undefined, 1);
    const link = await vi.waitFor(() => view.all().find((n) => n.attributes.get("download") === "x")!.attributes.get("href")!);
    expect(await (await fetch(link)).text()).toBe("content");
    await expect(room(1)).rejects.toThrow("too much for this browser");
    item.gone();
    expect(revoked).toHaveBeenCalledWith(link);
    const next = await taken(most); // there is room
    const late = await next.arrivals.place(f);
    next.item.gone();
    await expect(room(1)).rejects.toThrow("too much for this browser"); // it is on its way
    next.arrivals.kept(f, "00", late);
    await (await place(most)).discard();
  });
});
