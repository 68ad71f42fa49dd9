"""The throw-away server: made, configured, started, asked and removed here."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile

SETTINGS = {
    "listen_addresses": "''",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "2GB",
    "min_wal_size": "4GB",
    "max_wal_size": "12GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "jit": "off",
    "track_counts": "on",
    "max_prepared_transactions": "0",
}


class Failed(Exception):
    """A command of the benchmark failed; its message is for the user."""


def run(command, user=None, **options):
    """Run a command, as another user where we are root; returns its output."""
    if user is not None and os.geteuid() == 0:
        command = ["runuser", "-u", user, "--"] + command
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, cwd=options.pop("cwd", "/"), **options)
    if done.returncode != 0:
        raise Failed("%s\n%s%s" % (" ".join(command), done.stdout[-2000:], done.stderr[-2000:]))
    return done.stdout


class Session:
    """One psql, and so one backend, that stays open and is asked again and again."""

    END = "-- end of answer --"

    def __init__(self, server):
        self.process = subprocess.Popen(
            [server.bin + "/psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", server.database],
            env=server.environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd="/")
        self.ask("SET client_min_messages = warning;")
        self.pid = int(self.ask("SELECT pg_backend_pid();")[0][0])

    def send(self, script):
        self.process.stdin.write(script + "\n\\echo %s\n" % self.END)
        self.process.stdin.flush()

    def answer(self):
        rows = []
        for line in self.process.stdout:
            if line.rstrip("\n") == self.END:
                return rows
            rows.append(line.rstrip("\n").split("\t"))
        raise Failed("a session ended: " + self.process.stderr.read())

    def ask(self, script):
        self.send(script)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Server:
    """A cluster in a temporary folder, reached through its unix socket only."""

    def __init__(self, pg_config):
        self.pg_config = pg_config
        self.bin = run([pg_config, "--bindir"]).strip()
        self.version = run([pg_config, "--version"]).split()[1]
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.folder = tempfile.mkdtemp(prefix="rowkeeper-bench-")
        self.started = False
        self.database = "bench"

    def install(self, checkout):
        """Build rowkeeper and the benchmark's module in a copy, and install both."""
        copy = os.path.join(self.folder, "build")
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(
            ".git", "*.o", "*.so", "*.bc", "results", "output_iso", "tmp_check"))
        make = ["make", "-s", "with_llvm=no", "PG_CONFIG=" + self.pg_config]
        writable = os.access(run([self.pg_config, "--pkglibdir"]).strip(), os.W_OK)
        for folder in (copy, os.path.join(copy, "test/bench/module")):
            run(make + ["-j%d" % os.cpu_count()], cwd=folder)
            run(([] if writable else ["sudo"]) + make + ["install"], cwd=folder)

    def start(self):
        data = os.path.join(self.folder, "data")
        os.chmod(self.folder, 0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        run([self.bin + "/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
             "--locale=C.UTF-8"], self.user)
        with open(data + "/postgresql.conf", "a") as conf:
            for name, value in SETTINGS.items():
                conf.write("%s = %s\n" % (name, value))
            conf.write("unix_socket_directories = '%s'\n" % self.folder)
        self.data = data
        self.pg_ctl("start")

    def pg_ctl(self, action):
        """Start or stop the server, and wait for it."""
        run([self.bin + "/pg_ctl", "-D", self.data, "-l", self.folder + "/log", "-w"] +
            (["-m", "fast"] if action == "stop" else []) + [action], self.user)
        self.started = action == "start"

    def stop(self):
        if self.started:
            self.pg_ctl("stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self):
        return dict(os.environ, PGHOST=self.folder, PGUSER="postgres", PGDATABASE=self.database,
                    PGOPTIONS="", PGAPPNAME="rowkeeper bench")

    @contextlib.contextmanager
    def own_database(self, name):
        """A database for what other extensions would slow down: the event triggers of a peer see all DDL."""
        shared, self.database = self.database, name
        try:
            self.psql("CREATE DATABASE %s" % name, "postgres")
            self.psql("SET client_min_messages = warning; CREATE EXTENSION rowkeeper CASCADE")
            yield
        finally:
            self.database = shared

    def psql(self, script, database=None):
        """Run a psql script in one session; returns its rows as lists of text."""
        out = run([self.bin + "/psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1",
                   "-d", database or self.database, "-f", "-"], input=script, env=self.environment())
        return [line.split("\t") for line in out.splitlines()]

    def value(self, sql, database=None):
        """The single value a query returns, as text."""
        return self.psql(sql, database)[0][0]

    def pgbench_command(self, script, clients, seconds, options):
        return [self.bin + "/pgbench", "-n", "-M", "prepared", "-c", str(clients),
                "-j", str(clients), "-T", str(seconds), "-f", script] + list(options)

    def start_pgbench(self, script, clients, seconds, options=()):
        """A load in the background; the caller waits for its end."""
        return subprocess.Popen(self.pgbench_command(script, clients, seconds, options), cwd=self.folder,
                                env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def pgbench(self, script, clients, seconds, options=()):
        """Transactions a second of a script, prepared, without connection time."""
        out = run(self.pgbench_command(script, clients, seconds, options), env=self.environment())
        for line in out.splitlines():
            if line.startswith("tps"):
                return float(line.split()[2])
        raise Failed("pgbench said no tps:\n" + out)

    def pgbench_latencies(self, scripts, clients, seconds):
        """Average milliseconds of scripts between which each transaction of one run chooses at random."""
        others = [word for script in scripts[1:] for word in ("-f", script)]
        out = run(self.pgbench_command(scripts[0], clients, seconds, others), env=self.environment())
        latencies = [float(line.split()[-2]) for line in out.splitlines() if line.startswith(" - latency average")]
        if len(latencies) != len(scripts):
            raise Failed("pgbench said no latency of each script:\n" + out)
        return latencies
