// Watches that a process and its children hold no connection that leaves this machine.
import fs from "node:fs";

const children = (pid) => {
  const all = [pid];
  try {
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
      for (const child of fs.readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean)) all.push(...children(Number(child)));
    }
  } catch { /* it has ended */ }
  return all;
};

/** Remote addresses in /proc/net/tcp and tcp6 that are not loopback, by inode. */
function remote() {
  const found = new Map();
  for (const table of ["tcp", "tcp6"]) {
    let text = "";
    try { text = fs.readFileSync(`/proc/net/${table}`, "utf8"); } catch { continue; }
    for (const line of text.split("\n").slice(1)) {
      const [, , address, state, , , , , , inode] = line.trim().split(/\s+/);
      const host = address?.split(":")[0];
      if (!host || state === "0A") continue;
      const loopback = host.length === 8 ? host.endsWith("7F") : /^0{24}01000000$|FFFF0000......7F$|^0+$/.test(host);
      if (!loopback) found.set(inode, address);
    }
  }
  return found;
}

/** Looks every 50 ms, from now on, until the process ends. */
export function loopbackOnly(pid) {
  const strangers = new Set();
  let looked = 0;
  const look = () => {
    looked += 1;
    const outside = remote();
    for (const one of outside.size ? children(pid) : []) {
      let files = [];
      try { files = fs.readdirSync(`/proc/${one}/fd`); } catch { continue; }
      for (const file of files) {
        let target = "";
        try { target = fs.readlinkSync(`/proc/${one}/fd/${file}`); } catch { continue; }
        const inode = target.match(/^socket:\[(\d+)\]$/)?.[1];
        if (outside.has(inode)) strangers.add(outside.get(inode));
      }
    }
  };
  setInterval(look, 50).unref();
  look();
  return { strangers: () => [...strangers], looked: () => looked };
}
