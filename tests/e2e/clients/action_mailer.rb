# Sends the letters of the JSON in ARGV[0] with Debian's ActionMailer, Rails's mailer; exit 1 on an error.
require 'json'
require 'action_mailer'

order = JSON.parse(ARGV[0])

ActionMailer::Base.logger = nil
ActionMailer::Base.raise_delivery_errors = true
ActionMailer::Base.delivery_method = :smtp
ActionMailer::Base.smtp_settings = { address: order['host'], port: order['port'], open_timeout: 30, read_timeout: 30 }
if order['username'] != ''
  ActionMailer::Base.smtp_settings.merge!(
    user_name: order['username'], password: order['password'],
    authentication: (order['mechanism'] || 'plain').downcase.tr('-', '_').to_sym
  )
end
ActionMailer::Base.smtp_settings[:enable_starttls_auto] = order['tls'] == 'starttls'
ActionMailer::Base.smtp_settings[:enable_starttls] = true if order['tls'] == 'starttls'
ActionMailer::Base.smtp_settings[:tls] = true if order['tls'] == 'implicit'

# As an app writes a mailer.
class Letters < ActionMailer::Base
  def letter(one)
    headers(one['headers'])
    attachments[one['filename']] = { content: Base64.decode64(one['attachment']) }
    names = { from: "App <#{one['sender']}>", to: one['to'], subject: one['subject'] }
    names[:bcc] = one['bcc'] if one['bcc'] != ''
    mail(names) do |format|
      format.text { render plain: one['text'] }
      format.html { render html: one['html'].html_safe }
    end
  end
end

begin
  order['letters'].each { |one| Letters.letter(one).deliver_now }
rescue StandardError => e
  $stderr.puts "#{e.class}: #{e.message}"  # ruby -W0 silences warn
  exit 1
end
