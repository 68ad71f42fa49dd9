# What the Ruby client needs to show things: one line of TAP for each.
$shown = 0

def ok(condition, name)
  puts "#{condition ? 'ok' : 'not ok'} #{$shown += 1} - #{name}"
  $stdout.flush
end

def same(got, expected, name)
  ok(got == expected, name)
  comment("expected #{expected.inspect}\n     got #{got.inspect}") if got != expected
end

# The block fails with the client's own error, which is returned.
def raises(error, name)
  yield
  ok(false, "#{name} (nothing was raised)")
  nil
rescue error => e
  ok(true, name)
  e
rescue StandardError => e
  ok(false, name)
  comment(e.full_message(highlight: false))
end

# Run a story; one that dies is a failure, and the next ones are told.
def story(name)
  yield
rescue StandardError => e
  ok(false, "#{name} went to its end")
  comment(e.full_message(highlight: false))
end

def comment(text)
  puts text.gsub(/^/, '# ')
end

def done
  puts "1..#{$shown}"
end
