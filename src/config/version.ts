// The versions that this server answers with. Clients decide by the etcd line what they may ask for (kube-apiserver enables
// progress requests by it), so it names the release whose surface is implemented; the keelson line is the package's own.

export const etcdVersion: string = '3.7.1';
/** Equal to package.json's; a test keeps it so. */
export const keelsonVersion: string = '0.1.0';
export const gitSha: string = 'Not provided';

/** What --version prints: etcd's four lines, which scripts parse, then ours. There is no Go, and the line says so. */
export function versionText(nodeVersion: string, platform: string, arch: string): string {
  const goArch = arch === 'x64' ? 'amd64' : arch;
  return `etcd Version: ${etcdVersion}
Git SHA: ${gitSha}
Go Version: none (node ${nodeVersion})
Go OS/Arch: ${platform}/${goArch}
keelson Version: ${keelsonVersion}
`;
}
