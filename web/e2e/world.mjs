// What the browser tests stand on: processes that print JSON lines, and
// Debian's Chromium.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, mkdtempSync, openSync, readSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { blake3 } from "@noble/hashes/blake3.js";
import { chromium } from "playwright-core";

/** The programs under test, built before. */
const peerchat = process.env.PEERCHAT ?? "peerchat";
const peerProgram = process.env.PEER ?? "peer";
const chromiumPath = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** How long is waited for what is to happen, on a machine however busy. In milliseconds. */
export const patience = 60_000;

/** Process is one of ours that prints JSON lines. */
class Process {
  #lines = [];
  #waiting = new Set();
  #end;

  constructor(program, args, env) {
    this.name = `${path.basename(program)} ${args[0]}`;
    this.child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...env } });
    this.child.stdin.on("error", () => {}); // it has ended, which is told below
    // Settles when the process is over and all that it said has been read.
    this.over = new Promise((resolve) => {
      this.child.on("error", (e) => resolve(this.#fail(e)));
      this.child.on("close", (code, signal) => resolve(this.#fail(new Error(`${this.name} ended: ${code ?? signal}; it said ${JSON.stringify(this.#lines)}`))));
    });
    readline.createInterface({ input: this.child.stdout }).on("line", (l) => {
      this.#lines.push(JSON.parse(l));
      for (const w of this.#waiting) w.look();
    });
  }

  #fail(e) {
    this.#end = e;
    for (const w of this.#waiting) w.failed(e);
    this.#waiting.clear();
  }

  /** said waits for a line that fits. */
  said(fits, what, ms = patience) {
    return new Promise((done, failed) => {
      const late = setTimeout(() => failed(new Error(`${this.name} did not say ${what} in ${ms} ms; it said ${JSON.stringify(this.#lines)}`)), ms);
      const w = {
        failed: (e) => {
          clearTimeout(late);
          failed(e);
        },
        look: () => {
          const at = this.#lines.findIndex(fits);
          if (at < 0) return;
          clearTimeout(late);
          this.#waiting.delete(w);
          done(this.#lines.splice(at, 1)[0]);
        },
      };
      this.#waiting.add(w);
      w.look();
      if (this.#end && this.#waiting.delete(w)) w.failed(this.#end);
    });
  }

  tell(line) {
    this.child.stdin.write(line + "\n");
  }

  kill() {
    this.child.kill("SIGKILL");
  }
}

/** World is everything that a test may use. */
export class World {
  static async make() {
    const w = new World();
    w.dir = mkdtempSync(path.join(tmpdir(), "peerlink-e2e-"));
    w.processes = [];
    w.files = new Map();
    try {
      w.web = await w.serve();
      w.url = w.web.url;
      w.signal = w.web.signal;
      w.browser = await chromium.launch({
        executablePath: chromiumPath,
        args: [
          "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--allow-loopback-in-peer-connection",
        ],
      });
      return w;
    } catch (e) {
      await w.close();
      throw e;
    }
  }

  start(program, args) {
    const p = new Process(program, args, { XDG_DATA_HOME: this.dir, XDG_RUNTIME_DIR: this.dir, PEERCHAT_BOOTSTRAP: "" });
    this.processes.push(p);
    return p;
  }

  /** serve starts “peerchat web”. */
  async serve(...args) {
    const p = this.start(peerchat, ["web", "--addr", "127.0.0.1:0", "--json", ...args]);
    const ready = await p.said((l) => l.step === "ready", "that it is ready");
    p.url = ready.url;
    p.signal = ready.signal;
    return p;
  }

  /** account makes one for peerchat, and returns the flags to use it with. */
  account(name) {
    const at = mkdtempSync(path.join(this.dir, "account-"));
    rmdirSync(at);
    execFileSync(peerchat, ["init", "--account", at, "--name", name]);
    return this.flags(at);
  }

  flags(at) {
    return ["--account", at, "--signal", this.signal, "--loopback", "--local", "off", "--no-daemon", "--json"];
  }

  /** listen starts “peerchat listen”. */
  async listen(name, ...args) {
    return this.again({ flags: this.account(name), into: mkdtempSync(path.join(this.dir, "into-")) }, ...args);
  }

  /** again starts “peerchat listen” as one that was killed: with its account and folder. */
  async again({ flags, into }, ...args) {
    const p = this.start(peerchat, ["listen", "--into", into, "--accept", "always", ...args, ...flags]);
    [p.into, p.flags] = [into, flags];
    const ready = await p.said((l) => l.step === "ready", "that it is ready");
    assert.equal(ready.ok, true, ready.error);
    p.device = ready.device;
    return p;
  }

  /** send starts “peerchat send”. */
  send(name, to, file) {
    return this.start(peerchat, ["send", to, file, ...this.account(name)]);
  }

  /** chat starts “peerchat chat”, whose input are lines to say. */
  chat(name, to) {
    return this.start(peerchat, ["chat", to, ...this.account(name)]);
  }

  /** peer starts a device that does what peerchat does not: see peer/main.go. */
  async peer(...args) {
    const into = mkdtempSync(path.join(this.dir, "into-"));
    const p = this.start(peerProgram, ["-signal", this.signal, "-into", into, ...args]); // a flag that comes again counts
    p.into = into;
    p.ready = await p.said((l) => l.step === "ready", "that it is ready");
    p.device = p.ready.device;
    return p;
  }

  /** context is a browser profile of its own; what its pages complain about fails the test. */
  async context(options = {}) {
    const c = await this.browser.newContext({ viewport: { width: 1100, height: 720 }, locale: "en-GB", ...options });
    c.setDefaultTimeout(patience);
    c.complaints = [];
    c.on("console", (m) => m.type() === "error" && c.complaints.push(m.text()));
    c.on("weberror", (e) => c.complaints.push(String(e.error())));
    return c;
  }

  /** file makes a file of random bytes and returns its path and BLAKE3. */
  file(name, bytes) {
    const made = this.files.get(`${bytes} ${name}`);
    if (made) return made;
    const b = randomFillSync(Buffer.alloc(bytes));
    const at = path.join(this.dir, name);
    writeFileSync(at, b);
    const file = { at, name, bytes, blake3: blake3Of(at) };
    this.files.set(`${bytes} ${name}`, file);
    return file;
  }

  async close() {
    await this.browser?.close();
    for (const p of this.processes) p.kill();
    await Promise.all(this.processes.map((p) => p.over)); // they write into the folder
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** blake3Of a file, in hex. */
export function blake3Of(at) {
  const hash = blake3.create();
  const piece = Buffer.alloc(1 << 20);
  const fd = openSync(at);
  for (let n; (n = readSync(fd, piece)) > 0; ) hash.update(piece.subarray(0, n));
  closeSync(fd);
  return Buffer.from(hash.digest()).toString("hex");
}

/** open loads the page and waits until it is reachable. */
export async function open(world, context, url = world.url) {
  const page = await context.newPage();
  await page.goto(url);
  await page.locator("#line", { hasText: "Reachable" }).waitFor();
  return page;
}

/** own returns the page's device id. */
export async function own(page) {
  return (await page.locator("#me-id").textContent()).replaceAll(" ", "");
}

/** connect has the page call a device, by keyboard alone. */
export async function connect(page, device) {
  await page.getByRole("textbox", { name: "Connect to a device" }).focus();
  await page.keyboard.insertText(device);
  await page.keyboard.press("Enter");
  await page.locator(".conversation[data-state=connected]").waitFor();
}

/** say writes a message. */
export async function say(page, text) {
  await page.getByRole("textbox", { name: "Message" }).fill(text);
  await page.keyboard.press("Enter");
}

/** heard waits for a message of the other side. */
export function heard(page, text) {
  return page.locator(".entry.yours", { hasText: text }).waitFor();
}

/** shoot keeps a screenshot. */
export async function shoot(page, name) {
  const dir = process.env.SCREENSHOTS ?? new URL("./out", import.meta.url).pathname;
  mkdirSync(dir, { recursive: true });
  await page.screenshot({ path: path.join(dir, `${name}.png`) });
}

export { assert, path };
