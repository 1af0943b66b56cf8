// A caller of the hooks of CloudStack's KVM agent: our own code after LibvirtKvmAgentHook.java, Script.java and
// OutputInterpreter.java of 4.21, with the real GroovyScriptEngine.
//
//     groovy agent.groovy < CASES
//
// A case is a line of five paths, separated by tabs: the agent's folder of hooks, the policy to put into
// /etc/iova-preflight, the domain XML, where to write what goes to libvirt, and where to write the agent's log.
import groovy.util.GroovyScriptEngine

import java.util.concurrent.TimeUnit

class AgentLog {
    final StringBuilder text = new StringBuilder()
    void info(Object said) { text << "INFO ${said}\n" }
    void warn(Object said) { text << "WARN ${said}\n" }
    void error(Object said) { text << "ERROR ${said}\n" }
}

// What the script returns is asked to transform. Of null, and of any exception, comes the original.
String byGroovy(File hooks, String xml, AgentLog log) {
    def script = new File(hooks, 'libvirt-vm-xml-transformer.groovy')
    if (!script.canRead()) return xml
    try {
        def made = (GroovyObject) new GroovyScriptEngine(hooks.path).run(script.name, new Binding())
        return (String) made.invokeMethod('transform', [log, xml] as Object[]) ?: xml
    } catch (Exception e) {
        log.warn("the Groovy hook failed: ${e}")
        return xml
    }
}

// Standard error is joined to standard output. Nothing is read while the script runs, 30 seconds at most. Lines lose their
// ends. Any status but 0 means the original, and is logged.
String byShell(File hooks, String xml, AgentLog log) {
    def script = new File(hooks, 'libvirt-vm-xml-transformer.sh')
    if (!script.canRead()) return xml
    try {
        def process = new ProcessBuilder(script.path, 'transform', xml).redirectErrorStream(true).start()
        if (!process.waitFor(30, TimeUnit.SECONDS)) {
            process.destroyForcibly()
            log.warn('the shell hook timed out')
            return xml
        }
        def lines = process.inputStream.readLines('UTF-8')
        if (process.exitValue() == 0) return lines.collect { it + '\n' }.join()
        log.warn("the shell hook ended with ${process.exitValue()}: ${lines.join()}")
    } catch (IOException e) {
        log.warn("the shell hook cannot be run: ${e.message}")
    }
    return xml
}

System.in.eachLine('UTF-8') { line ->
    def (hooks, policy, domain, result, said) = line.split('\t').collect { new File(it) }
    new File('/etc/iova-preflight/policy.toml').bytes = policy.bytes
    def log = new AgentLog()
    def xml = byGroovy(hooks, domain.getText('UTF-8'), log)
    result.setText(byShell(hooks, xml, log), 'UTF-8')
    said.setText(log.text.toString(), 'UTF-8')
}
