// iova-preflight adapter cloudstack: `install` writes this file and replaces it, `uninstall` removes it.
//
// CloudStack's agent runs it and calls transform() of what it returns. The domain goes to iova-preflight on standard
// input, which has no limit on its size, and comes back on standard output. Whatever goes wrong, CloudStack gets its own
// XML back, and the agent's log has the reason.
import java.util.concurrent.TimeUnit

class IovaPreflightTransformer {
    static final String PROGRAM = '/usr/bin/iova-preflight'
    // Longer than iova-preflight lets itself work (20 seconds).
    static final long SECONDS = 25

    String transform(Object logger, String xml) {
        Process process = null
        try {
            process = new ProcessBuilder(PROGRAM, 'adapter', 'cloudstack').start()
            def out = new ByteArrayOutputStream()
            def err = new ByteArrayOutputStream()
            def readers = [process.consumeProcessOutputStream(out), process.consumeProcessErrorStream(err)]
            // Beside the waiting: a program that reads nothing must not hold up the VM.
            Thread.startDaemon {
                try {
                    process.outputStream.withStream { it << xml.getBytes('UTF-8') }
                } catch (IOException ignored) {
                    // It ended before it had read everything, and its exit status says why.
                }
            }
            if (!process.waitFor(SECONDS, TimeUnit.SECONDS)) {
                logger.warn("iova-preflight: no answer after ${SECONDS} seconds; the domain XML is unchanged".toString())
                return xml
            }
            readers*.join(1000)
            // Somebody who still has the pipe may have more to say.
            if (process.exitValue() == 0 && out.size() > 0 && !readers.any { it.alive }) {
                return out.toString('UTF-8')
            }
            def said = err.toString('UTF-8').trim() ?: "iova-preflight: exit status ${process.exitValue()}"
            logger.warn("${said}; the domain XML is unchanged".toString())
        } catch (Exception e) {
            logger.warn("iova-preflight: ${e.message}; the domain XML is unchanged".toString())
        } finally {
            process?.destroyForcibly()
        }
        return xml
    }
}

new IovaPreflightTransformer()
