// keelsonctl endpoint health, status, hashkv and defrag: one endpoint after the other (health: all at once), each by a
// connection of its own, so that an answer is that endpoint's.

import type { EtcdClient } from '../client/client.ts';
import { rpc } from '../client/rpc.ts';
import { formatDuration } from '../config/go-value.ts';
import { AlarmAction, type AlarmResponse } from '../proto/etcdserverpb.ts';
import type { Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { byteString, textOf } from './byte-text.ts';
import { ExitCode, ExitError, failingWith } from './exit.ts';
import { complain } from './output.ts';
import { alarmNames, type EndpointHash, type EndpointHealth, type EndpointStatus } from './printer.ts';
import type { Session } from './session.ts';

/** Those given, or with --cluster the client URLs of every member. As byte strings. */
async function endpointsOf(session: Session, isCluster: boolean): Promise<readonly string[]> {
  await session.configure();
  if (!isCluster) return session.globals.endpoints;
  const client = await session.connect();
  const call = client.call(rpc.memberList, { linearizable: true }, { deadlineMs: session.deadlineMs() });
  const { members } = await failingWith(
    ExitCode.error,
    call,
    (reason) => `failed to fetch endpoints from etcd cluster member list: ${reason}`,
  );
  return members.flatMap((member) => member.clientUrls.map(byteString));
}

/** How long since `startNs`, as Go prints it. */
function since(startNs: bigint): string {
  return formatDuration(process.hrtime.bigint() - startNs);
}

export async function runHealth(session: Session, isCluster: boolean): Promise<void> {
  const endpoints = await endpointsOf(session, isCluster);
  const list = await Promise.all(endpoints.map((endpoint) => healthOf(session, endpoint)));
  session.print('endpointHealth', list);
  if (list.some((health) => health.error !== '')) throw new ExitError(ExitCode.error, 'unhealthy cluster');
}

/** Healthy is who answers a linearizable read and has no alarm. */
async function healthOf(session: Session, byteText: string): Promise<EndpointHealth> {
  const endpoint = textOf(byteText);
  let client: EtcdClient;
  try {
    client = await session.connect([byteText]);
  } catch (error) {
    if (!(error instanceof ExitError) || error.code !== ExitCode.badConnection) throw error;
    return { endpoint, isHealthy: false, took: '', error: error.message };
  }
  const deadlineMs = session.deadlineFromNowMs();
  const startNs = process.hrtime.bigint();
  let took = '';
  try {
    await client.call(rpc.range, { key: Buffer.from('health') }, { deadlineMs });
    took = since(startNs);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    took = since(startNs);
    // Who refuses the key has gone through consensus to say so.
    if (error.message !== etcdErrors.permissionDenied.message) {
      return { endpoint, isHealthy: false, took, error: error.message };
    }
  }
  try {
    const { alarms } = await client.call(rpc.alarm, { action: AlarmAction.get }, { deadlineMs });
    return { endpoint, isHealthy: alarms.length === 0, took, error: alarmText(alarms) };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { endpoint, isHealthy: false, took, error: 'Unable to fetch the alarm list' };
  }
}

function alarmText(alarms: Message<typeof AlarmResponse>['alarms']): string {
  if (alarms.length === 0) return '';
  const names = alarms.map(({ alarm }) => (alarm === 0 ? 'UNKNOWN' : (alarmNames[alarm] ?? 'UNKNOWN')));
  return `Active Alarm(s): ${names.map((name) => `${name} `).join('')}`;
}

export async function runStatus(session: Session, isCluster: boolean): Promise<void> {
  const list: EndpointStatus[] = [];
  const failures = await eachEndpoint(session, isCluster, 'get the status of', async (client, endpoint, deadlineMs) => {
    list.push({ endpoint, status: await client.call(rpc.status, {}, { deadlineMs }) });
  });
  session.print('endpointStatus', list);
  if (failures.length > 0) throw new ExitError(ExitCode.error, null);
}

export async function runHashKv(session: Session, isCluster: boolean, revision: number): Promise<void> {
  const list: EndpointHash[] = [];
  const failures = await eachEndpoint(session, isCluster, 'get the hash of', async (client, endpoint, deadlineMs) => {
    list.push({ endpoint, hash: await client.call(rpc.hashKv, { revision }, { deadlineMs }) });
  });
  session.print('endpointHashKv', list);
  if (failures.length > 0) throw new ExitError(ExitCode.error, failures.at(-1)!);
}

async function eachEndpoint(
  session: Session,
  isCluster: boolean,
  what: string,
  run: (client: EtcdClient, endpoint: string, deadlineMs: number) => Promise<void>,
): Promise<string[]> {
  const failures: string[] = [];
  for (const byteText of await endpointsOf(session, isCluster)) {
    const endpoint = textOf(byteText);
    const client = await session.connect([byteText]);
    try {
      await run(client, endpoint, session.deadlineFromNowMs());
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      failures.push(error.message);
      complain(`Failed to ${what} endpoint ${endpoint} (${error.message})\n`);
    } finally {
      client.close();
    }
  }
  return failures;
}

export async function runDefrag(session: Session, isCluster: boolean): Promise<void> {
  let failures = 0;
  for (const byteText of await endpointsOf(session, isCluster)) {
    const endpoint = textOf(byteText);
    const client = await session.connect([byteText]);
    const deadlineMs = session.deadlineFromNowMs();
    const startNs = process.hrtime.bigint();
    try {
      await client.call(rpc.defragment, {}, { deadlineMs });
      session.out.line(`Finished defragmenting etcd member[${endpoint}]. took ${since(startNs)}`);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      failures++;
      const reason = error.message;
      complain(`Failed to defragment etcd member[${endpoint}]. took ${since(startNs)}. (${reason})\n`);
    } finally {
      client.close();
    }
  }
  if (failures > 0) throw new ExitError(ExitCode.error, null);
}
