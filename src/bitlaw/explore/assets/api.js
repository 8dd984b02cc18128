// Questions to the server, all of them GET, and jobs that are asked after until they are done.

const PAUSE = 400;

export class Refused extends Error {}

export function address(path, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values))
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, one);
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function ask(path, values = {}, options = {}) {
  const response = await fetch(address(path, values), options);
  const data = await response.json().catch(() => ({ error: "the answer could not be read" }));
  if (!response.ok) throw new Refused(data.error);
  return data;
}

// Begin a job and wait for it; `tell` hears how far it is. An `AbortSignal` ends the waiting.
export async function work(path, values, tell, signal) {
  let job = await ask(path, values, { signal });
  while (job.state === "waiting" || job.state === "running") {
    tell(job);
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    job = await ask("job", { key: job.key }, { signal });
  }
  tell(job);
  if (job.state === "failed") throw new Refused(job.error);
  return job;
}

export const part = (job, name) => ask("part", { key: job.key, name });
