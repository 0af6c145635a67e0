// Where received files go: the browser's own file system for the page, or
// memory where it has none. The user saves them from there.

import type { FileSink } from "../peerlink";

const folder = "received";
/** What is taken without a file system, in bytes: it is held in memory. */
const memoryMost = 256 << 20;
/** What is left free of the browser's room, in bytes. */
const spare = 16 << 20;

/** Kept is a sink whose file can be fetched once it was kept. */
export interface Kept extends FileSink {
  file(): Promise<Blob>;
  /** forget frees the room. */
  forget(): Promise<void>;
}

/** place makes room for a file of a size, or throws with a reason that the sender may see. */
export async function place(bytes: number): Promise<Kept> {
  const { quota, usage } = (await navigator.storage?.estimate?.()) ?? {};
  if (quota !== undefined && usage !== undefined && bytes > quota - usage - spare) throw new Error("there is not enough room for the file");
  const dir = await open();
  if (dir) return stored(dir);
  if (bytes > memoryMost) throw new Error("the file is too large for this browser");
  return inMemory();
}

/** What was received and not forgotten is removed after so long, in milliseconds. */
const keptFor = 24 * 3600_000;

/** clear removes files that an earlier page has left. */
export async function clear(): Promise<void> {
  const dir = await open();
  if (!dir) return;
  try {
    for await (const [name, handle] of dir.entries()) {
      if (handle.kind !== "file") continue;
      const { lastModified } = await (handle as FileSystemFileHandle).getFile();
      if (Date.now() - lastModified > keptFor) await dir.removeEntry(name);
    }
  } catch {
    // one that is in use, or a browser that cannot list: the next page tries again
  }
}

async function open(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    const dir = await (await navigator.storage.getDirectory()).getDirectoryHandle(folder, { create: true });
    return "createWritable" in FileSystemFileHandle.prototype ? dir : undefined;
  } catch {
    return undefined;
  }
}

async function stored(dir: FileSystemDirectoryHandle): Promise<Kept> {
  const name = crypto.randomUUID();
  const handle = await dir.getFileHandle(name, { create: true });
  const out = await handle.createWritable();
  const forget = () => dir.removeEntry(name).catch(() => {}); // gone already
  return {
    write: (b) => out.write(b),
    keep: () => out.close(),
    discard: async () => {
      await out.abort().catch(() => {}); // it may have failed before
      await forget();
    },
    file: () => handle.getFile(),
    forget,
  };
}

function inMemory(): Kept {
  let parts: Uint8Array<ArrayBuffer>[] = [];
  const forget = async () => void (parts = []);
  return {
    write: async (b) => void parts.push(b.slice()),
    keep: async () => {},
    discard: forget,
    file: async () => new Blob(parts),
    forget,
  };
}
